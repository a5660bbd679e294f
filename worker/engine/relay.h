// Steps on their way from the leader to its followers, stamped and verified.
#ifndef MUSTER_WORKER_ENGINE_RELAY_H_
#define MUSTER_WORKER_ENGINE_RELAY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "worker/engine/step.h"
#include "worker/engine/step_ring.h"

namespace muster {

// The leader's side. Used by the thread that runs the steps.
class RelaySender {
 public:
  // `ring` outlives it; null when there are no followers.
  RelaySender(Epoch epoch, StepRing* ring) : epoch_(epoch), ring_(ring) {}

  // Stamps `step` with the epoch and the next number and hands it to every follower. Errors as of
  // StepRing::Push.
  absl::Status Send(Step& step, absl::Duration timeout);
  // Until every follower has taken all steps, and is through with all but the last. Errors as of
  // StepRing::AwaitTaken.
  absl::Status AwaitTaken(absl::Duration timeout) {
    return ring_ == nullptr ? absl::OkStatus() : ring_->AwaitTaken(timeout);
  }
  // The last step sent; 0 before the first.
  StepNumber last() const { return last_; }

 private:
  const Epoch epoch_;
  StepRing* const ring_;
  StepNumber last_;
  std::string bytes_;
};

// A follower's side. Used by the thread that runs the steps.
class RelayReceiver {
 public:
  // `ring` outlives it.
  RelayReceiver(Epoch epoch, GlobalRank self, StepRing& ring)
      : epoch_(epoch), self_(self), ring_(ring) {}

  // Waits for the next step. FAILED_PRECONDITION when it is not this epoch's or not the one after
  // the last; DATA_LOSS, INVALID_ARGUMENT as of DecodeStep and CheckStep; each names this rank.
  // Nothing of such a step may be run. The reason of an abort.
  absl::Status Receive(const StepBounds& bounds, Step& step);
  StepNumber last() const { return last_; }

 private:
  absl::Status Verify(const StepBounds& bounds, Step& step) const;

  const Epoch epoch_;
  const GlobalRank self_;
  StepRing& ring_;
  StepNumber last_;
  std::string bytes_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_RELAY_H_
