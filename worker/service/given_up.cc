#include "worker/service/given_up.h"

#include <chrono>

#include "base/error.h"

namespace muster {

absl::Status HungUp() {
  return MakeError(absl::StatusCode::kCancelled, "the caller hung up before the step was stamped",
                   {.reason = ErrorReason::kGivenUp});
}

absl::Status StillWanted(const grpc::CallbackServerContext& context) {
  if (context.deadline() <= std::chrono::system_clock::now()) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     "the caller's deadline passed before the step was stamped",
                     {.reason = ErrorReason::kGivenUp, .retriable = true});
  }
  return context.IsCancelled() ? HungUp() : absl::OkStatus();
}

}  // namespace muster
