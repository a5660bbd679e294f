#include "base/wire_status.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/metrics/answered_errors.h"
#include "base/text.h"
#include "proto/google/rpc/status.pb.h"

namespace muster {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailBytes = 4096 - kMaxMessageBytes - 128;
constexpr absl::string_view kDetailUrl = "type.googleapis.com/muster.v1.ErrorDetail";

// C0, DEL and C1; the last are two bytes of UTF-8.
bool IsControl(absl::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return lead < 0x20 || lead == 0x7f;
  return lead == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
}

std::string Printable(absl::string_view text) {
  constexpr absl::string_view kCut = "...";
  std::string printable;
  size_t kept = 0;  // of `printable`, so that kCut fits behind it
  while (!text.empty()) {
    const absl::string_view character = text.substr(0, CharacterBytes(text));
    if (character.empty()) {
      printable += '?';
    } else if (IsControl(character)) {
      printable += ' ';
    } else {
      absl::StrAppend(&printable, character);
    }
    if (printable.size() > kMaxMessageBytes) return absl::StrCat(printable.substr(0, kept), kCut);
    if (printable.size() <= kMaxMessageBytes - kCut.size()) kept = printable.size();
    text.remove_prefix(std::max<size_t>(character.size(), 1));
  }
  return printable;
}

// Whoever gave no reason for such a code means that the request cannot be as it is.
bool BlamesTheRequest(absl::StatusCode code) {
  return code == absl::StatusCode::kInvalidArgument || code == absl::StatusCode::kOutOfRange ||
         code == absl::StatusCode::kAlreadyExists;
}

// 0 when there is none.
int ReasonIn(const google::rpc::Status& details) {
  v1::ErrorDetail detail;
  const bool has_one = details.details_size() > 0 && details.details(0).UnpackTo(&detail);
  return has_one ? static_cast<int>(detail.reason()) : 0;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status details;
  if (status.ok()) return details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(Printable(status.message()));
  const auto payload = status.GetPayload(kDetailUrl);
  if (payload.has_value() && payload->size() <= kMaxDetailBytes) {
    auto* any = details.add_details();
    any->set_type_url(std::string(kDetailUrl));
    any->set_value(std::string(*payload));
  } else if (!payload.has_value() && BlamesTheRequest(status.code())) {
    v1::ErrorDetail detail;
    detail.set_reason(v1::ERROR_REASON_INVALID_REQUEST);
    details.add_details()->PackFrom(detail);
  }
  AnsweredErrors::Instance().Add(ReasonIn(details));
  return details;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status details = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const auto& any : details.details()) {
    if (any.type_url() == kDetailUrl && any.value().size() <= kMaxDetailBytes) {
      result.SetPayload(kDetailUrl, absl::Cord(any.value()));
    }
  }
  return result;
}

bool IsFromTransport(const grpc::Status& status) {
  return !status.ok() && status.error_details().empty();
}

WireFailure ToWireFailure(const absl::Status& status) {
  WireFailure failure{.code = static_cast<uint32_t>(status.code()),
                      .message = Printable(status.message())};
  if (const auto payload = status.GetPayload(kDetailUrl); payload.has_value()) {
    failure.detail.ParseFromString(std::string(*payload));
  }
  return failure;
}

absl::Status FromWireFailure(uint32_t code, const std::string& message,
                             const v1::ErrorDetail& detail) {
  absl::StatusCode canonical = absl::StatusCode::kUnknown;
  if (code >= 1 && code <= 16) canonical = static_cast<absl::StatusCode>(code);
  absl::Status status(canonical, message);
  if (std::string payload = detail.SerializeAsString(); !payload.empty()) {
    status.SetPayload(kDetailUrl, absl::Cord(std::move(payload)));
  }
  return status;
}

}  // namespace muster
