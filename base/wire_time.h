// Times as the messages of google.protobuf, and back; deadlines for gRPC.
#ifndef MUSTER_BASE_WIRE_TIME_H_
#define MUSTER_BASE_WIRE_TIME_H_

#include <chrono>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace muster {

// Seconds and nanoseconds; infinite ones become the longest that the messages hold.
google::protobuf::Duration ToWire(absl::Duration duration);
google::protobuf::Timestamp ToWire(absl::Time time);

// Not negative.
absl::Duration FromWire(const google::protobuf::Duration& wire);
// More than 0, at most `longest`: INVALID_ARGUMENT names the value and the limit.
absl::StatusOr<absl::Duration> TimeoutFromWire(const google::protobuf::Duration& wire,
                                               absl::Duration longest);

// For a call, an alarm or a queue of gRPC; at most a year from now. Not by absl::Now(), which
// learns only within two seconds that somebody has set the clock: a wait of milliseconds then lasts
// hours.
std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_TIME_H_
