// Errors that a program can act on: an absl::Status with a typed detail as its
// payload.
#ifndef MUSTER_BASE_ERROR_H_
#define MUSTER_BASE_ERROR_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace muster {

// Mirrors muster.v1.ErrorReason, value by value.
enum class ErrorReason {
  kUnspecified = 0,
  kInvalidRequest = 1,
  kPlanRefused = 2,
  kNotEnoughWorkers = 3,
  kModelUnusable = 4,
  kStaleEpoch = 5,
  kWrongState = 6,
  kRankMissing = 7,
  kRankLost = 8,
  kRankFailed = 9,
  kDisagreement = 10,
  kOutOfMemory = 11,
  kKvCapacity = 12,
  kContextExceeded = 13,
  kUnknownSequence = 14,
  kPositionMismatch = 15,
  kNotLeader = 16,
  kSequenceExists = 17,
  kRequestIdReused = 18,
  kQueueFull = 19,
  kGivenUp = 20,
  kCannotSample = 21,
  kOperationRunning = 22,
  kOperationCancelled = 23,
  kKvCorrupt = 24,
  kWorkerDrained = 25,
};

struct ErrorDetail {
  ErrorReason reason = ErrorReason::kUnspecified;
  Epoch epoch;
  std::vector<GlobalRank> ranks;
  std::vector<std::string> workers;
  std::string phase;
  bool retriable = false;
  bool kv_written = false;
};

// A status with a detail. `code` must not be OK.
absl::Status MakeError(absl::StatusCode code, absl::string_view message, const ErrorDetail& detail);

// The detail of a status, or a default one when it carries none.
ErrorDetail DetailOf(const absl::Status& status);

// The same status with `prefix` and ": " before its message; code and payloads
// are kept.
absl::Status Annotate(const absl::Status& status, absl::string_view prefix);

}  // namespace muster

#endif  // MUSTER_BASE_ERROR_H_
