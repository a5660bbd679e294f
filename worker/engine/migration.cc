#include "worker/engine/migration.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// Requests wait no longer than this for a switch that does not come.
constexpr absl::Duration kLongestPause = absl::Seconds(30);
// How often to look whether the former epoch has ended, once the next one has failed.
constexpr absl::Duration kLook = absl::Milliseconds(20);

absl::Status TooLate(absl::string_view what) {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   absl::StrCat(what, "; the epoch before serves on"),
                   {.reason = ErrorReason::kRankMissing, .phase = "activate"});
}

}  // namespace

Migration::Migration(Options options, std::shared_ptr<Handover> handover)
    : options_(std::move(options)), handover_(std::move(handover)) {}

void Migration::TakeTurn() {
  engine().TakeTurn(
      [self = shared_from_this()](SequenceTable& sequences, const Engine::Means& means) {
        return self->Advance(sequences, means);
      });
}

absl::StatusOr<Takeover> Migration::Run(absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    deadline_ = deadline;
  }
  TakeTurn();
  const auto over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return state_ >= State::kServing || !failure_.ok() || !lost_.ok();
  };
  {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&over), deadline - Clock::Real().Now());
  }
  GiveUp(TooLate("the takeover did not come to its end in time"));
  // Whatever it came to: the former epoch's thread brings it to an end, unless that has ended.
  absl::MutexLock lock(&mu_);
  const auto ended = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return state_ >= State::kServing || !lost_.ok();
  };
  while (!mu_.AwaitWithTimeout(absl::Condition(&ended), kLook)) {
    const absl::Status stopped = engine().queue().stopped();
    if (!stopped.ok()) return stopped;
  }
  if (state_ == State::kEnded) return failure_;
  MUSTER_RETURN_IF_ERROR(lost_);
  return result_;
}

absl::StatusOr<std::optional<Step>> Migration::NextPart() {
  absl::MutexLock lock(&mu_);
  const auto something = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return part_.has_value() || !failure_.ok() || state_ >= State::kSwitched;
  };
  mu_.Await(absl::Condition(&something));
  MUSTER_RETURN_IF_ERROR(failure_);
  if (!part_.has_value()) return std::nullopt;
  return std::exchange(part_, std::nullopt);
}

void Migration::PartDone() {
  {
    absl::MutexLock lock(&mu_);
    copying_ = false;
    result_.copy_time += Clock::Real().Now() - part_begun_;
    if (state_ != State::kCopying) return;
  }
  TakeTurn();
}

void Migration::Taken() {
  absl::MutexLock lock(&mu_);
  state_ = State::kTaken;
}

absl::Time Migration::Serves(int64_t tokens_rebuilt) {
  absl::MutexLock lock(&mu_);
  result_.pause = Clock::Real().Now() - held_;
  result_.tokens_rebuilt = static_cast<uint64_t>(tokens_rebuilt);
  state_ = State::kServing;
  return held_;
}

void Migration::Fail(const absl::Status& reason) {
  if (GiveUp(reason)) return;
  absl::MutexLock lock(&mu_);
  if (lost_.ok()) lost_ = reason;
}

bool Migration::GiveUp(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mu_);
    if (state_ >= State::kDecided) return state_ == State::kEnded;
    if (!failure_.ok()) return true;
    failure_ = reason;
  }
  TakeTurn();
  return true;
}

absl::StatusOr<Engine::TurnEnd> Migration::Advance(SequenceTable& sequences,
                                                   const Engine::Means& means) {
  State state;
  absl::Status failure;
  bool copying = false;
  {
    absl::MutexLock lock(&mu_);
    state = state_;
    failure = failure_;
    copying = copying_;
  }
  if (state >= State::kDecided) return Engine::TurnEnd::kRunOn;
  if (!failure.ok()) return RollBack(sequences, means, failure);
  if (state == State::kNew) {
    if (const absl::Status begun = Begin(sequences); !begun.ok()) {
      End(begun);
      return Engine::TurnEnd::kRunOn;
    }
  }
  if (copying) return Engine::TurnEnd::kRunOn;
  if (settled_) return Hold(sequences, means);
  const auto most =
      static_cast<int>(std::max<uint64_t>(options_.part_bytes / (options_.block_bytes + 1), 1));
  Step part;
  MUSTER_ASSIGN_OR_RETURN(const bool more, sequences.PlanMoves(MoveScope::kSettled, most, part));
  settled_ = !more;
  copied_ += part.moves.size();
  options_.on_progress({.phase = "activate/copy", .done = copied_, .total = 0, .unit = "blocks"});
  MUSTER_RETURN_IF_ERROR(StartPart(std::move(part), means));
  return Engine::TurnEnd::kRunOn;
}

absl::Status Migration::Begin(SequenceTable& sequences) {
  MUSTER_RETURN_IF_ERROR(sequences.BeginMoves(
      options_.next, options_.drop, [this] { return AwaitPart(absl::InfiniteFuture()); }));
  absl::MutexLock lock(&mu_);
  state_ = State::kCopying;
  return absl::OkStatus();
}

absl::Status Migration::Stamp(StepKind kind, const Engine::Means& means) {
  Step step;
  step.kind = kind;
  return means.relay.Send(step, means.step_timeout);
}

uint64_t Migration::CopiesOf(const StepMove& move) const {
  return static_cast<uint64_t>(move.from != move.to
                                   ? options_.next.tp
                                   : options_.next.replaced[static_cast<size_t>(move.to)]);
}

absl::Status Migration::StartPart(Step part, const Engine::Means& means) {
  if (!part.moves.empty()) {
    Step seal;
    seal.kind = StepKind::kSeal;
    seal.moves = part.moves;
    MUSTER_RETURN_IF_ERROR(means.relay.Send(seal, means.step_timeout));
    // The leader has cp rank 0.
    MUSTER_RETURN_IF_ERROR(SealBlocks(seal, 0, *handover_->estate().arena));
  }
  absl::MutexLock lock(&mu_);
  for (const StepMove& move : part.moves) {
    const uint64_t bytes = CopiesOf(move) * options_.block_bytes;
    result_.kv_bytes_moved += bytes;
    if (state_ == State::kHeld) result_.kv_bytes_in_pause += bytes;
  }
  part_ = std::move(part);
  copying_ = true;
  part_begun_ = Clock::Real().Now();
  return absl::OkStatus();
}

bool Migration::AwaitPart(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto done = [this]()
                        ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !copying_ || !failure_.ok(); };
  if (!mu_.AwaitWithTimeout(absl::Condition(&done), deadline - Clock::Real().Now()) &&
      failure_.ok()) {
    failure_ = TooLate("the KV blocks were not copied in time");
  }
  return failure_.ok();
}

absl::StatusOr<Engine::TurnEnd> Migration::Hold(SequenceTable& sequences,
                                                const Engine::Means& means) {
  const absl::Time held = Clock::Real().Now();
  {
    absl::MutexLock lock(&mu_);
    state_ = State::kHeld;
    held_ = held;
  }
  options_.on_progress({.phase = "activate/hold"});
  MUSTER_RETURN_IF_ERROR(Stamp(StepKind::kHold, means));
  absl::Status ready = MoveRest(sequences, means);
  if (ready.ok()) ready = Decide();
  if (!ready.ok()) {
    MUSTER_ASSIGN_OR_RETURN(const Engine::TurnEnd end, RollBack(sequences, means, ready));
    means.spans.WritePause(held);
    return end;
  }
  if (const absl::Status switched = Switch(sequences, means); !switched.ok()) {
    // There is no way back any more: whoever waits for a part ends with it, and neither serves.
    absl::MutexLock lock(&mu_);
    failure_ = switched;
    return switched;
  }
  return Engine::TurnEnd::kHandOver;
}

absl::Status Migration::Switch(SequenceTable& sequences, const Engine::Means& means) {
  MUSTER_RETURN_IF_ERROR(sequences.Commit());
  MUSTER_RETURN_IF_ERROR(Stamp(StepKind::kSwitch, means));
  options_.on_progress({.phase = "activate/switch"});
  engine().queue().Serve(options_.epoch);
  absl::MutexLock lock(&mu_);
  result_.sequences = sequences.capacity().sequences;
  result_.sequences_dropped = sequences.dropped();
  result_.kv_blocks_moved = static_cast<uint64_t>(sequences.blocks_moved());
  result_.kv_blocks_kept = static_cast<uint64_t>(sequences.blocks_kept());
  state_ = State::kSwitched;
  // Requests must find one epoch or the other.
  const auto taken = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return state_ >= State::kTaken || !lost_.ok();
  };
  mu_.AwaitWithTimeout(absl::Condition(&taken), means.step_timeout);
  return absl::OkStatus();
}

absl::Status Migration::MoveRest(SequenceTable& sequences, const Engine::Means& means) {
  absl::Time deadline;
  {
    absl::MutexLock lock(&mu_);
    deadline = std::min(deadline_, held_ + kLongestPause);
  }
  bool more = true;
  while (more) {
    Step part;
    MUSTER_ASSIGN_OR_RETURN(more, sequences.PlanMoves(MoveScope::kAll, Step::kMaxMoves, part));
    MUSTER_RETURN_IF_ERROR(StartPart(std::move(part), means));
    if (!AwaitPart(deadline)) break;
  }
  absl::MutexLock lock(&mu_);
  return failure_;
}

absl::Status Migration::Decide() {
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(failure_);
  MUSTER_RETURN_IF_ERROR(handover_->estate().pass_on());
  state_ = State::kDecided;
  return absl::OkStatus();
}

absl::StatusOr<Engine::TurnEnd> Migration::RollBack(SequenceTable& sequences,
                                                    const Engine::Means& means,
                                                    const absl::Status& reason) {
  // Whoever reads it copies nothing any more, and then runs steps that may use the same blocks.
  MUSTER_RETURN_IF_ERROR(Stamp(StepKind::kResume, means));
  handover_->StopMoves();
  sequences.Rollback();
  End(reason);
  return Engine::TurnEnd::kRunOn;
}

void Migration::End(const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  if (failure_.ok()) failure_ = reason;
  part_.reset();
  state_ = State::kEnded;
}

}  // namespace muster
