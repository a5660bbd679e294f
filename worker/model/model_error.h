#ifndef MUSTER_WORKER_MODEL_MODEL_ERROR_H_
#define MUSTER_WORKER_MODEL_MODEL_ERROR_H_

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace muster {

// The model's files cannot be used: INVALID_ARGUMENT with reason kModelUnusable.
template <typename... Args>
absl::Status ModelUnusable(const Args&... message) {
  return MakeError(absl::StatusCode::kInvalidArgument, absl::StrCat(message...),
                   {.reason = ErrorReason::kModelUnusable});
}

// A file or tensor that the model needs is not there: NOT_FOUND with reason kModelUnusable.
template <typename... Args>
absl::Status ModelIncomplete(const Args&... message) {
  return MakeError(absl::StatusCode::kNotFound, absl::StrCat(message...),
                   {.reason = ErrorReason::kModelUnusable});
}

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_ERROR_H_
