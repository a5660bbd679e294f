#include "base/wire_status.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "proto/google/rpc/status.pb.h"

namespace muster {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailBytes = 4096 - kMaxMessageBytes - 128;
constexpr absl::string_view kDetailUrl = "type.googleapis.com/muster.v1.ErrorDetail";

// Bytes of the well-formed UTF-8 character at the front of `text`, or 0.
size_t CharacterBytes(absl::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t size = lead < 0x80           ? 1
                      : (lead >> 5) == 0x06 ? 2
                      : (lead >> 4) == 0x0e ? 3
                      : (lead >> 3) == 0x1e ? 4
                                            : 0;
  if (size == 0 || size > text.size()) return 0;
  uint32_t code = size == 1 ? lead : lead & (0x7f >> size);
  for (size_t i = 1; i < size; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next >> 6) != 0x02) return 0;
    code = code << 6 | (next & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kSmallest[size] || code > 0x10ffff || surrogate ? 0 : size;
}

std::string Printable(absl::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const size_t size = CharacterBytes(text);
    if (printable.size() + size > kMaxMessageBytes - 3) return printable + "...";
    const auto lead = static_cast<unsigned char>(text[0]);
    if (size == 0 || lead < 0x20 || lead == 0x7f) {
      printable += size == 0 ? '?' : ' ';
    } else {
      printable.append(text.data(), size);
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return printable;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status &status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(Printable(status.message()));
  if (const auto payload = status.GetPayload(kDetailUrl);
      payload.has_value() && payload->size() <= kMaxDetailBytes) {
    auto *any = details.add_details();
    any->set_type_url(std::string(kDetailUrl));
    any->set_value(std::string(*payload));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status &status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const auto &any : details.details()) {
    if (any.type_url() == kDetailUrl && any.value().size() <= kMaxDetailBytes) {
      result.SetPayload(kDetailUrl, absl::Cord(any.value()));
    }
  }
  return result;
}

bool IsFromTransport(const grpc::Status &status) {
  return !status.ok() && status.error_details().empty();
}

WireFailure ToWireFailure(const absl::Status &status) {
  WireFailure failure{.code = static_cast<uint32_t>(status.code()),
                      .message = Printable(status.message())};
  if (const auto payload = status.GetPayload(kDetailUrl); payload.has_value()) {
    failure.detail.ParseFromString(std::string(*payload));
  }
  return failure;
}

absl::Status FromWireFailure(uint32_t code, const std::string &message,
                             const v1::ErrorDetail &detail) {
  absl::StatusCode canonical = absl::StatusCode::kUnknown;
  if (code >= 1 && code <= 16) canonical = static_cast<absl::StatusCode>(code);
  absl::Status status(canonical, message);
  if (std::string payload = detail.SerializeAsString(); !payload.empty()) {
    status.SetPayload(kDetailUrl, absl::Cord(std::move(payload)));
  }
  return status;
}

}  // namespace muster
