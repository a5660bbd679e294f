#include "base/wire_time.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/wire_check.h"

namespace muster {

google::protobuf::Duration ToWire(absl::Duration duration) {
  constexpr absl::Duration kLongest = absl::Seconds(315'576'000'000);
  duration = std::clamp(duration, -kLongest, kLongest);
  google::protobuf::Duration wire;
  wire.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  wire.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return wire;
}

google::protobuf::Timestamp ToWire(absl::Time time) {
  constexpr int64_t kFirst = -62'135'596'800;  // 0001-01-01
  constexpr int64_t kLast = 253'402'300'799;   // 9999-12-31
  google::protobuf::Timestamp wire;
  const int64_t seconds = absl::ToUnixSeconds(time);
  wire.set_seconds(std::clamp(seconds, kFirst, kLast));
  if (seconds == wire.seconds()) {
    wire.set_nanos(
        static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  }
  return wire;
}

absl::StatusOr<absl::Duration> TimeoutFromWire(const google::protobuf::Duration& wire,
                                               absl::Duration longest) {
  const absl::Duration timeout = FromWire(wire);
  if (timeout <= absl::ZeroDuration() || timeout > longest) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout is ", absl::FormatDuration(timeout), "; it can be up to ",
                     absl::FormatDuration(longest), " and must be positive"));
  }
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("timeout (nanoseconds)", static_cast<uint64_t>(wire.nanos()), 0, 999'999'999));
  return timeout;
}

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout) {
  constexpr absl::Duration kYear = absl::Hours(365 * 24);
  return std::chrono::system_clock::now() +
         absl::ToChronoNanoseconds(std::clamp(timeout, -kYear, kYear));
}

absl::Duration FromWire(const google::protobuf::Duration& wire) {
  return std::max(absl::ZeroDuration(),
                  absl::Seconds(wire.seconds()) + absl::Nanoseconds(wire.nanos()));
}

}  // namespace muster
