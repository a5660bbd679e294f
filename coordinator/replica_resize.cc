// How a replica that serves changes shape.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/text.h"
#include "coordinator/replica.h"

namespace muster {
namespace {

// The longest that a worker takes for a takeover.
constexpr absl::Duration kLongestTakeover = absl::Minutes(10);
constexpr absl::Duration kShortestTakeover = absl::Seconds(1);

std::string WorkersOf(const Topology& topology) {
  return absl::StrJoin(topology.ranks, " ", [](std::string* out, const RankPlacement& rank) {
    absl::StrAppend(out, rank.worker_id);
  });
}

// "1.1s": tenths are enough where it is seconds.
std::string Rounded(absl::Duration duration) {
  if (duration < absl::Seconds(1)) return ReadableTime(duration);
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(100)));
}

}  // namespace

std::string DescribeSizes(const ParallelConfig& from, const ParallelConfig& to) {
  std::vector<std::string> changes;
  if (from.tp != to.tp) changes.push_back(absl::StrCat("tp ", from.tp, " to ", to.tp));
  if (from.cp != to.cp) changes.push_back(absl::StrCat("cp ", from.cp, " to ", to.cp));
  return changes.empty() ? "the same sizes" : absl::StrJoin(changes, ", ");
}

std::string DescribeChange(const ParallelConfig& from, const ParallelConfig& to,
                           const std::string& note) {
  if (note.empty()) return DescribeSizes(from, to);
  const bool same = from.tp == to.tp && from.cp == to.cp;
  return same ? note : absl::StrCat(note, ", ", DescribeSizes(from, to));
}

void Replica::Resize(ResizeOrder order) {
  const Topology& to = order.plan.topology;
  resize_ = {.replica = status_.replica,
             .from_epoch = status_.topology->epoch,
             .to_epoch = to.epoch,
             .from = status_.topology->config,
             .to = to.config,
             .note = std::move(order.note)};
  operation_id_ = std::move(order.operation_id);
  resize_started_ = ports_.clock.Now();
  resize_deadline_ = resize_started_ + order.timeout;
  current_loss_ = next_loss_ = unsettled_ = absl::OkStatus();
  next_phases_.clear();
  status_.next = to;
  EnterStage(ResizeStage::kPreparing,
             absl::StrCat("preparing ", NameOfResize(), " on ", WorkersOf(to)));
  next_ = MakeFormation(std::move(order.plan));
  next_->Start();
}

// While it is under way: its note tells what was done.
std::string Replica::NameOfResize() const {
  const bool same = resize_.from.tp == resize_.to.tp && resize_.from.cp == resize_.to.cp;
  return same ? absl::StrCat("epoch ", resize_.to_epoch.value())
              : DescribeSizes(resize_.from, resize_.to);
}

absl::Status Replica::CancelResize(const absl::Status& reason) {
  if (resize_.stage == ResizeStage::kPreparing) {
    RollBack(reason);
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("replica ", status_.replica.value(), ": ", NameOfResize(),
                                " takes effect already."),
                   {.reason = ErrorReason::kWrongState, .epoch = resize_.to_epoch});
}

ReplicaResize Replica::resize() const {
  ReplicaResize resize = resize_;
  if (next_ != nullptr) resize.ranks = next_->progress();
  return resize;
}

void Replica::BeginTakeover() {
  const absl::Time now = ports_.clock.Now();
  resize_.prepare_time = now - resize_started_;
  EnterStage(ResizeStage::kActivating, absl::StrCat("prepared in ", Rounded(resize_.prepare_time),
                                                    "; the leader takes sequences and KV over"));
  next_->Activate(std::clamp(resize_deadline_ - now, kShortestTakeover, kLongestTakeover));
}

void Replica::Switch(const Takeover& takeover) {
  FormationPointer former = std::exchange(current_, std::exchange(next_, nullptr));
  const Topology& topology = current_->topology();
  status_ = {.replica = status_.replica,
             .topology = topology,
             .ledgers = current_->ledgers(),
             .phases = std::exchange(next_phases_, {}),
             .serving_since = ports_.clock.Now()};
  SetState(ReplicaState::kServing, absl::OkStatus());
  shape_ = {.config = topology.config, .buckets = current_->plan().buckets};
  resize_.takeover = takeover;
  ports_.events.counters().NoteResized(takeover);
  ports_.events.Append({.kind = EventKind::kResized,
                        .replica = status_.replica,
                        .epoch = topology.epoch,
                        .message = DescribeResized(),
                        .operation_id = operation_id_});
  EnterStage(ResizeStage::kReleasing,
             absl::StrCat("epoch ", resize_.from_epoch.value(), " is given back"));
  Retire(std::move(former), absl::OkStatus());
  if (!next_loss_.ok()) FailEpoch(next_loss_);
}

std::string Replica::DescribeResized() const {
  const Takeover& takeover = resize_.takeover;
  std::string text =
      absl::StrCat(DescribeChange(resize_.from, resize_.to, resize_.note), ": prepare ",
                   Rounded(resize_.prepare_time), ", pause ", Rounded(takeover.pause), ", ",
                   Counted(takeover.kv_blocks_moved, "KV block"), " moved, ",
                   WithCommas(takeover.kv_blocks_kept), " kept");
  if (takeover.tokens_rebuilt > 0) {
    absl::StrAppend(&text, ", ", Counted(takeover.tokens_rebuilt, "token"), " computed again");
  }
  if (takeover.sequences_dropped > 0) {
    absl::StrAppend(&text, ", ",
                    Counted(static_cast<uint64_t>(takeover.sequences_dropped), "sequence"),
                    " dropped");
  }
  return text;
}

// An answer may have got lost on its way, an error does not tell on which side of the switch it
// was, and who failed the next epoch may be lost to this one as well: a report that comes later
// tells.
void Replica::OnNextFailed(const absl::Status& reason) {
  std::string witness;
  for (const std::string& culprit : DetailOf(reason).workers) {
    for (const RankPlacement& rank : current_->topology().ranks) {
      if (rank.worker_id == culprit) witness = culprit;
    }
  }
  if (resize_.stage == ResizeStage::kActivating) witness = current_->topology().ranks[0].worker_id;
  if (witness.empty()) return RollBack(reason);
  unsettled_ = reason;
  witness_ = witness;
  const auto view = ports_.membership.Find(witness);
  witnessed_ = view.has_value() ? view->report : 0;
}

void Replica::Settle() {
  // One that is a member no more is about to be told as lost.
  const auto witness = ports_.membership.Find(witness_);
  if (!witness.has_value() || witness->report <= witnessed_) return;
  if (resize_.stage == ResizeStage::kActivating) return SettleTakeover(*witness);
  const absl::Status failure = current_->ReportedFailure();
  failure.ok() ? RollBack(unsettled_) : FailEpoch(failure);
}

void Replica::SettleTakeover(const WorkerView& leader) {
  const auto reports = [&](Epoch epoch, WorkerState state) {
    return std::any_of(leader.epochs.begin(), leader.epochs.end(), [&](const EpochReport& it) {
      return it.replica == status_.replica && it.epoch == epoch && it.state == state;
    });
  };
  if (reports(resize_.to_epoch, WorkerState::kServing)) {
    next_->MarkServing();
    return Switch({});
  }
  const absl::Status reason = next_loss_.ok() ? unsettled_ : next_loss_;
  const bool passed_on = reports(resize_.from_epoch, WorkerState::kDraining);
  absl::Status failure = current_loss_;
  if (failure.ok()) failure = current_->ReportedFailure();
  // It has handed over, and the other one was lost before it served, by whoever is known to be
  // lost.
  if (passed_on || (!failure.ok() && current_loss_.ok() && !next_loss_.ok())) failure = reason;
  failure.ok() ? RollBack(reason) : FailEpoch(failure);
}

bool Replica::TakeLossWhileResizing(const WorkerInfo& worker, const absl::Status& reason) {
  const auto in_current = current_->RankOf(worker.worker_id, worker.incarnation);
  const auto in_next = next_->RankOf(worker.worker_id, worker.incarnation);
  const bool deciding = resize_.stage == ResizeStage::kActivating;
  if (in_next.has_value() && !in_current.has_value()) {
    const absl::Status loss = next_->Blame(*in_next, reason);
    if (!deciding) {
      RollBack(loss);
    } else if (next_loss_.ok()) {
      next_loss_ = loss;
      next_->Abort(loss);
    }
    return true;
  }
  if (in_current.has_value() && !in_next.has_value() && deciding) {
    if (current_loss_.ok()) {
      current_loss_ = current_->Blame(*in_current, reason);
      current_->Abort(current_loss_);
    }
    return true;
  }
  return false;
}

void Replica::TickResize() {
  if (!unsettled_.ok()) return Settle();
  if (resize_.stage != ResizeStage::kPreparing) return;
  if (ports_.clock.Now() < resize_deadline_) return next_->Tick();
  RollBack(PreparedTooLate());
}

absl::Status Replica::PreparedTooLate() const {
  ErrorDetail detail{.reason = ErrorReason::kRankMissing, .epoch = resize_.to_epoch};
  std::vector<std::string> behind;
  for (const RankProgress& rank : next_->Unfinished()) {
    if (detail.phase.empty()) detail.phase = rank.progress.phase;
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    behind.push_back(absl::StrCat("rank ", rank.rank.value(), " (worker ", rank.worker_id, ") is ",
                                  DescribeProgress(rank.progress)));
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("epoch ", resize_.to_epoch.value(), " was not prepared within ",
                   InUnits(resize_deadline_ - resize_started_), ": ", absl::StrJoin(behind, ", ")),
      detail);
}

void Replica::RollBack(const absl::Status& reason) {
  FormationPointer undone = std::exchange(next_, nullptr);
  undone->Abort(reason);
  status_.next.reset();
  resize_.stage = ResizeStage::kRolledBack;
  resize_.failure = reason;
  ports_.events.counters().resizes_rolled_back.Add();
  ++version_;
  EmitFailure(EventKind::kRolledBack, resize_.to_epoch, reason);
  Retire(std::move(undone), reason);
}

void Replica::GiveUpNext(const absl::Status& reason) {
  if (resize_.stage == ResizeStage::kReleasing) {
    resize_.stage = ResizeStage::kFailed;
    resize_.failure = reason;
    ports_.events.counters().resizes_failed.Add();
  }
  if (next_ == nullptr) return;
  FormationPointer given_up = std::exchange(next_, nullptr);
  given_up->Abort(reason);
  status_.next.reset();
  resize_.stage = ResizeStage::kFailed;
  resize_.failure = reason;
  ports_.events.counters().resizes_failed.Add();
  ++version_;
  Retire(std::move(given_up), reason);
}

void Replica::FinishResize() {
  if (resize_.stage != ResizeStage::kReleasing || !retiring_.empty()) return;
  EnterStage(ResizeStage::kDone,
             absl::StrCat("epoch ", resize_.from_epoch.value(), " has been given back"));
}

void Replica::Retire(FormationPointer formation, const absl::Status& why) {
  retiring_.push_back(formation);
  formation->Release(why);
}

void Replica::EnterStage(ResizeStage stage, const std::string& message) {
  resize_.stage = stage;
  ++version_;
  ports_.events.Append({.kind = EventKind::kResizeProgress,
                        .replica = status_.replica,
                        .epoch = resize_.to_epoch,
                        .message = message,
                        .operation_id = operation_id_});
}

}  // namespace muster
