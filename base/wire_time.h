// Times as the messages of google.protobuf, and back.
#ifndef MUSTER_BASE_WIRE_TIME_H_
#define MUSTER_BASE_WIRE_TIME_H_

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

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_TIME_H_
