#include "base/error.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "proto/muster/v1/error.pb.h"

namespace muster {
namespace {

constexpr absl::string_view kTypeUrl = "type.googleapis.com/muster.v1.ErrorDetail";
constexpr size_t kMaxCulprits = 8;

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view message,
                       const ErrorDetail& detail) {
  v1::ErrorDetail wire;
  wire.set_reason(static_cast<v1::ErrorReason>(detail.reason));
  wire.set_epoch(detail.epoch.value());
  for (size_t i = 0; i < std::min(detail.ranks.size(), kMaxCulprits); ++i) {
    wire.add_ranks(static_cast<uint32_t>(detail.ranks[i].value()));
  }
  for (size_t i = 0; i < std::min(detail.workers.size(), kMaxCulprits); ++i) {
    wire.add_workers(detail.workers[i]);
  }
  wire.set_culprit_count(
      static_cast<uint32_t>(std::max(detail.ranks.size(), detail.workers.size())));
  wire.set_phase(detail.phase);
  wire.set_retriable(detail.retriable);
  wire.set_kv_written(detail.kv_written);
  absl::Status status(code, message);
  status.SetPayload(kTypeUrl, absl::Cord(wire.SerializeAsString()));
  return status;
}

ErrorDetail DetailOf(const absl::Status& status) {
  ErrorDetail detail;
  const auto payload = status.GetPayload(kTypeUrl);
  v1::ErrorDetail wire;
  if (!payload.has_value() || !wire.ParseFromString(std::string(*payload))) return detail;
  detail.reason = static_cast<ErrorReason>(wire.reason());
  detail.epoch = Epoch(wire.epoch());
  for (uint32_t rank : wire.ranks()) detail.ranks.emplace_back(static_cast<int>(rank));
  detail.workers.assign(wire.workers().begin(), wire.workers().end());
  detail.phase = wire.phase();
  detail.retriable = wire.retriable();
  detail.kv_written = wire.kv_written();
  return detail;
}

absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace muster
