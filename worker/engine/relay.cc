#include "worker/engine/relay.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {

absl::Status RelaySender::Send(Step& step, absl::Duration timeout) {
  step.epoch = epoch_;
  step.number = StepNumber(last_.value() + 1);
  if (ring_ != nullptr) {
    EncodeStep(step, bytes_);
    MUSTER_RETURN_IF_ERROR(ring_->Push(bytes_, timeout));
  }
  last_ = step.number;
  return absl::OkStatus();
}

absl::Status RelayReceiver::Receive(const StepBounds& bounds, Step& step) {
  MUSTER_RETURN_IF_ERROR(ring_.Pop(bytes_));
  if (const absl::Status status = Verify(bounds, step); !status.ok()) {
    return MakeError(status.code(),
                     absl::StrCat("rank ", self_.value(), " refuses the stamp after step ",
                                  last_.value(), ": ", status.message()),
                     {.reason = ErrorReason::kDisagreement, .epoch = epoch_, .ranks = {self_}});
  }
  last_ = step.number;
  return absl::OkStatus();
}

absl::Status RelayReceiver::Verify(const StepBounds& bounds, Step& step) const {
  MUSTER_RETURN_IF_ERROR(DecodeStep(bytes_, bounds.limits, step));
  if (step.epoch != epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("it is of epoch ", step.epoch.value(), ", not ", epoch_.value()));
  }
  if (step.number.value() != last_.value() + 1) {
    return absl::FailedPreconditionError(absl::StrCat("it has number ", step.number.value()));
  }
  return CheckStep(step, bounds);
}

}  // namespace muster
