#include "worker/engine/handover.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// How long a step of the former epoch may take to make way.
// Recruits wait in a collective meanwhile, which takes 10 s at most.
constexpr absl::Duration kLongestStep = absl::Seconds(5);

absl::Status Late(absl::string_view what, absl::Duration bound) {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   absl::StrCat(what, " within ", absl::FormatDuration(bound)),
                   {.reason = ErrorReason::kRankMissing, .retriable = true});
}

}  // namespace

absl::Status Handover::Use(absl::FunctionRef<absl::Status()> use) {
  {
    absl::MutexLock lock(&mu_);
    MUSTER_RETURN_IF_ERROR(closed_);
    ++users_;
  }
  const absl::Status status = use();
  absl::MutexLock lock(&mu_);
  --users_;
  return status;
}

absl::Status Handover::BetweenSteps(absl::FunctionRef<absl::Status()> work) {
  return Use([&] {
    {
      absl::MutexLock lock(&mu_);
      ++asked_;
    }
    AskForSlot();
    absl::Status status = AwaitSlot();
    if (status.ok()) status = work();
    absl::MutexLock lock(&mu_);
    ended_ = asked_;
    return status;
  });
}

void Handover::AskForSlot() {
  if (estate_.engine == nullptr) return;
  estate_.engine->TakeTurn(
      [self = shared_from_this()](SequenceTable&,
                                  const Engine::Means& means) -> absl::StatusOr<Engine::TurnEnd> {
        // Whoever asked may have given up meanwhile, and another be there.
        if (self->over()) return Engine::TurnEnd::kRunOn;
        Step step;
        step.kind = StepKind::kSlot;
        MUSTER_RETURN_IF_ERROR(means.relay.Send(step, means.step_timeout));
        self->Park();
        return Engine::TurnEnd::kRunOn;
      });
}

absl::Status Handover::AwaitSlot() {
  absl::MutexLock lock(&mu_);
  const auto decided = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return granted_ == asked_ || left_ || !closed_.ok() || !given_up_.ok();
  };
  const bool in_time = mu_.AwaitWithTimeout(absl::Condition(&decided), kLongestStep);
  MUSTER_RETURN_IF_ERROR(closed_);
  MUSTER_RETURN_IF_ERROR(given_up_);
  if (!in_time) return Late("the steps of the epoch that serves did not make way", kLongestStep);
  if (granted_ == asked_) return absl::OkStatus();
  return absl::AbortedError("the epoch was given up");
}

void Handover::Park() {
  const auto asked = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return asked_ > granted_ || left_ || !closed_.ok() || !given_up_.ok();
  };
  const auto through = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return ended_ >= granted_; };
  const absl::Status late = Late("not all ranks of the next epoch came through a step of their own",
                                 estate_.longest_slot);
  {
    absl::MutexLock lock(&mu_);
    bool in_time = mu_.AwaitWithTimeout(absl::Condition(&asked), estate_.longest_slot);
    if (asked_ > granted_ && closed_.ok() && !left_ && given_up_.ok()) {
      ++granted_;
      in_time = mu_.AwaitWithTimeout(absl::Condition(&through), estate_.longest_slot);
    }
    if (in_time) return;
    if (given_up_.ok()) given_up_ = late;
  }
  AbortSuccessor(late);
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&through));
}

void Handover::AwaitLeft() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&left_));
}

void Handover::SetSuccessor(std::function<void(const absl::Status&)> abort) {
  absl::MutexLock lock(&mu_);
  abort_ = std::move(abort);
}

void Handover::SetMover(std::shared_ptr<BlockMover> mover) {
  absl::MutexLock lock(&mu_);
  mover_ = std::move(mover);
}

void Handover::StopMoves() {
  std::shared_ptr<BlockMover> mover;
  {
    absl::MutexLock lock(&mu_);
    mover = mover_;
  }
  if (mover != nullptr) mover->Stop();
}

void Handover::GiveUp(const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  if (given_up_.ok()) given_up_ = reason;
}

void Handover::Leave() {
  absl::MutexLock lock(&mu_);
  left_ = true;
  abort_ = nullptr;
  mover_ = nullptr;
  const auto quiet = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return aborting_ == 0; };
  mu_.Await(absl::Condition(&quiet));
}

bool Handover::over() const {
  absl::MutexLock lock(&mu_);
  return left_ || !closed_.ok() || !given_up_.ok();
}

bool Handover::left() const {
  absl::MutexLock lock(&mu_);
  return left_;
}

void Handover::Close(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mu_);
    if (!closed_.ok()) return;
    closed_ = reason;
  }
  AbortSuccessor(reason);
}

void Handover::AwaitUnused() {
  absl::MutexLock lock(&mu_);
  const auto unused = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return users_ == 0; };
  mu_.Await(absl::Condition(&unused));
}

void Handover::AbortSuccessor(const absl::Status& reason) {
  std::function<void(const absl::Status&)> abort;
  {
    absl::MutexLock lock(&mu_);
    if (abort_ == nullptr) return;
    abort = abort_;
    ++aborting_;
  }
  abort(reason);
  absl::MutexLock lock(&mu_);
  --aborting_;
}

}  // namespace muster
