#include "coordinator/replica.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/text.h"

namespace muster {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
// Serving for so long makes up for earlier failures.
constexpr absl::Duration kSteady = absl::Seconds(10);
constexpr absl::Duration kLongestPause = absl::Seconds(10);
constexpr int kMostDoublings = 10;

}  // namespace

Replica::Replica(ReplicaIndex index, const Options& options, const Ports& ports)
    : options_(options), ports_(ports) {
  status_.replica = index;
}

bool Replica::Plannable() const {
  if (status_.state == ReplicaState::kFailed) return plan_refused_;
  return status_.state == ReplicaState::kWaiting && ports_.clock.Now() >= retry_at_;
}

bool Replica::Adoptable() const {
  return status_.state == ReplicaState::kWaiting ||
         (status_.state == ReplicaState::kFailed && plan_refused_);
}

bool Replica::Occupies(const std::string& worker_id) const {
  const bool running =
      status_.state == ReplicaState::kForming || status_.state == ReplicaState::kServing;
  if (current_ != nullptr && (running ? current_->Has(worker_id) : current_->Holds(worker_id))) {
    return true;
  }
  if (next_ != nullptr && next_->Has(worker_id)) return true;
  return std::any_of(
      retiring_.begin(), retiring_.end(),
      [&](const FormationPointer& formation) { return formation->Holds(worker_id); });
}

std::optional<Replica::Place> Replica::PlaceOf(const std::string& worker_id,
                                               Incarnation incarnation) const {
  if (current_ == nullptr) return std::nullopt;
  if (const auto rank = current_->RankOf(worker_id, incarnation); rank.has_value()) {
    const bool running =
        status_.state == ReplicaState::kForming || status_.state == ReplicaState::kServing;
    return Place{current_->topology().epoch, *rank,
                 running ? current_->PhaseOf(*rank) : LostPhaseOf(*rank)};
  }
  if (next_ == nullptr) return std::nullopt;
  const auto rank = next_->RankOf(worker_id, incarnation);
  if (!rank.has_value()) return std::nullopt;
  return Place{next_->topology().epoch, *rank, next_->PhaseOf(*rank)};
}

// A rank whose loss ended the epoch was lost in the phase that it was in.
std::string Replica::LostPhaseOf(GlobalRank rank) const {
  const ErrorDetail detail = DetailOf(status_.failure);
  const bool lost = detail.reason == ErrorReason::kRankLost &&
                    std::find(detail.ranks.begin(), detail.ranks.end(), rank) != detail.ranks.end();
  return lost ? detail.phase : "";
}

Replica::FormationPointer Replica::MakeFormation(FormationPlan plan) {
  FormationOwner& owner = *this;
  return std::make_shared<Formation>(std::move(plan), options_, ports_, owner);
}

void Replica::Form(FormationPlan plan) {
  status_ = {.replica = status_.replica, .topology = plan.topology};
  SetState(ReplicaState::kForming, absl::OkStatus());
  plan_refused_ = false;
  retry_ = false;
  const ParallelConfig& config = plan.topology.config;
  Emit(EventKind::kTopologyPlanned,
       absl::StrCat("planned tp=", config.tp, " cp=", config.cp, " on ",
                    absl::StrJoin(plan.topology.ranks, " ", [](std::string* out, const auto& rank) {
                      absl::StrAppend(out, rank.worker_id);
                    })));
  current_ = MakeFormation(std::move(plan));
  current_->Start();
}

void Replica::Adopt(const Topology& topology, std::vector<int> buckets) {
  status_ = {.replica = status_.replica, .topology = topology};
  plan_refused_ = false;
  retry_ = false;
  shape_ = {.config = topology.config, .buckets = std::move(buckets)};
  current_ = MakeFormation({.topology = topology});
  current_->MarkServing();
  ports_.board.BeginEpoch(topology);
  status_.serving_since = ports_.clock.Now();
  SetState(ReplicaState::kServing, absl::OkStatus());
  Emit(EventKind::kAdopted, absl::StrCat("adopted as it serves on ", topology.ranks.size(),
                                         " ranks, planned in term ", topology.term.value()));
}

void Replica::RefusePlan(const absl::Status& reason) {
  if (status_.state == ReplicaState::kFailed && status_.failure == reason) return;
  plan_refused_ = true;
  SetState(ReplicaState::kFailed, reason);
  Event event{.kind = EventKind::kPlanRefused,
              .replica = status_.replica,
              .message = std::string(reason.message())};
  ports_.events.Append(std::move(event));
}

void Replica::WaitFor(const absl::Status& reason) {
  if (status_.state == ReplicaState::kWaiting && status_.failure == reason) return;
  plan_refused_ = false;
  SetState(ReplicaState::kWaiting, reason);
}

void Replica::OnProgress(const Formation& /*formation*/) { ++version_; }

void Replica::OnPhaseDone(const Formation& formation, FormingPhase phase, absl::Duration took) {
  ++version_;
  const bool resizes = IsNext(formation);
  (resizes ? next_phases_ : status_.phases).push_back({FormingPhaseName(phase), took});
  // Of a takeover, what it did is told instead.
  if (resizes && phase == FormingPhase::kActivate) return;
  ports_.events.Append(
      {.kind = resizes ? EventKind::kResizeProgress : EventKind::kPhaseDone,
       .replica = status_.replica,
       .epoch = formation.topology().epoch,
       .phase = FormingPhaseName(phase),
       .message = absl::StrCat(FormingPhaseName(phase), " done on ",
                               formation.topology().ranks.size(), " ranks in ", ReadableTime(took)),
       .operation_id = resizes ? operation_id_ : ""});
}

void Replica::OnAgreed(Formation& formation) {
  IsNext(formation) ? BeginTakeover() : formation.Activate(absl::ZeroDuration());
}

void Replica::OnActivated(Formation& formation, const Takeover& takeover) {
  IsNext(formation) ? Switch(takeover) : Serve();
}

void Replica::OnFailed(Formation& formation, const absl::Status& reason) {
  IsNext(formation) ? OnNextFailed(reason) : FailEpoch(reason);
}

void Replica::OnReleased(Formation& formation) {
  ++version_;
  if (current_.get() == &formation) return OnAllReleased();
  std::erase_if(retiring_, [&](const FormationPointer& f) { return f.get() == &formation; });
  FinishResize();
}

void Replica::Serve() {
  status_.ledgers = current_->ledgers();
  status_.serving_since = ports_.clock.Now();
  SetState(ReplicaState::kServing, absl::OkStatus());
  Emit(EventKind::kServing, absl::StrCat("serving on ", status_.topology->ranks.size(), " ranks"));
}

void Replica::OnWorkerLost(const WorkerInfo& worker, const absl::Status& reason) {
  if (current_ == nullptr) return;
  if (next_ != nullptr && TakeLossWhileResizing(worker, reason)) return;
  const auto rank = current_->RankOf(worker.worker_id, worker.incarnation);
  if (!rank.has_value()) return;
  switch (status_.state) {
    case ReplicaState::kForming:
    case ReplicaState::kServing:
      return FailEpoch(current_->Blame(*rank, reason));
    case ReplicaState::kFailed:
      if (plan_refused_) return;
      retry_ = true;
      if (!current_->releasing()) OnAllReleased();
      return;
    case ReplicaState::kWaiting:
      return;
  }
}

void Replica::Tick() {
  if (status_.state == ReplicaState::kForming) current_->Tick();
  if (next_ != nullptr) TickResize();
  // What the leader reports while it decides is told by its answer.
  if (status_.state != ReplicaState::kServing || resize_.stage == ResizeStage::kActivating) return;
  if (ending()) return;  // the leader, which drains, answers
  if (absl::Status failure = current_->ReportedFailure(); !failure.ok()) FailEpoch(failure);
}

void Replica::FailEpoch(const absl::Status& reason) {
  // What fails while it forms fails again; what served can serve again.
  const bool served = status_.state == ReplicaState::kServing;
  retry_ = served || DetailOf(reason).reason == ErrorReason::kRankLost;
  if (served && ports_.clock.Now() - status_.serving_since >= kSteady) failures_ = 0;
  // Even the first pause is there for a reason: a worker whose call broke may be dead, and is a
  // member until its lease tells.
  retry_at_ = ports_.clock.Now() + std::min(kLongestPause, kFirstPause * (1 << failures_));
  failures_ = std::min(failures_ + 1, kMostDoublings);
  ending_ = absl::OkStatus();
  current_->Abort(reason);
  SetState(ReplicaState::kFailed, reason);
  EmitFailure(EventKind::kEpochFailed, current_->topology().epoch, reason);
  GiveUpNext(reason);
  const FormationPointer failed = current_;
  failed->Release(reason);
}

void Replica::End(const absl::Status& reason, absl::Duration timeout) {
  const bool serves = status_.state == ReplicaState::kServing;
  ending_ = reason;
  serves ? current_->Drain(timeout) : EndEpoch("it did not serve yet");
}

void Replica::OnDrained(Formation& formation, const absl::StatusOr<int>& sequences) {
  if (!ending() || current_.get() != &formation) return;
  const auto count = static_cast<uint64_t>(sequences.value_or(0));
  EndEpoch(!sequences.ok() ? std::string(sequences.status().message())
                           : absl::StrCat("all requests are answered, ", Counted(count, "sequence"),
                                          " to be computed again"));
}

void Replica::EndEpoch(const std::string& left) {
  const absl::Status reason = std::exchange(ending_, absl::OkStatus());
  retry_ = true;
  retry_at_ = ports_.clock.Now();
  current_->Abort(reason);
  SetState(ReplicaState::kFailed, reason);
  const ErrorDetail detail = DetailOf(reason);
  Event event{.kind = EventKind::kEpochEnded,
              .replica = status_.replica,
              .epoch = current_->topology().epoch,
              .message = absl::StrCat("the epoch ended, since ", reason.message(), ": ", left)};
  if (!detail.ranks.empty()) event.rank = detail.ranks.front();
  if (!detail.workers.empty()) event.worker_id = detail.workers.front();
  ports_.events.Append(std::move(event));
  const FormationPointer ended = current_;
  ended->Release(reason);
}

void Replica::Close(const absl::Status& reason) {
  const bool running =
      status_.state == ReplicaState::kForming || status_.state == ReplicaState::kServing;
  GiveUpNext(reason);
  retry_ = false;
  plan_refused_ = false;
  ending_ = absl::OkStatus();
  SetState(ReplicaState::kFailed, reason);
  if (!running) return;
  const FormationPointer closed = current_;
  closed->Release(reason);
}

void Replica::OnAllReleased() {
  if (retry_) SetState(ReplicaState::kWaiting, status_.failure);
}

void Replica::SetState(ReplicaState state, const absl::Status& failure) {
  status_.state = state;
  status_.failure = failure;
  ++version_;
}

void Replica::Emit(EventKind kind, std::string message) {
  ports_.events.Append({.kind = kind,
                        .replica = status_.replica,
                        .epoch = status_.topology->epoch,
                        .message = std::move(message)});
}

void Replica::EmitFailure(EventKind kind, Epoch epoch, const absl::Status& reason) {
  const ErrorDetail detail = DetailOf(reason);
  Event event{.kind = kind,
              .replica = status_.replica,
              .epoch = epoch,
              .phase = detail.phase,
              .message = std::string(reason.message())};
  if (!detail.ranks.empty()) event.rank = detail.ranks.front();
  if (!detail.workers.empty()) event.worker_id = detail.workers.front();
  if (next_ != nullptr || kind == EventKind::kRolledBack) event.operation_id = operation_id_;
  ports_.events.Append(std::move(event));
}

}  // namespace muster
