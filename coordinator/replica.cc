#include "coordinator/replica.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"

namespace muster {
namespace {

// Of a phase as a whole: progress, not this, is what bounds it in practice.
constexpr absl::Duration kPhaseDeadline = absl::Hours(1);
// The waits within a phase end by themselves first, since they know better who is missing.
constexpr absl::Duration kStallMargin = absl::Seconds(2);
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
// Serving for so long makes up for earlier failures.
constexpr absl::Duration kSteady = absl::Seconds(10);
constexpr absl::Duration kLongestPause = absl::Seconds(10);
constexpr int kMostDoublings = 10;

std::string Readable(absl::Duration duration) {
  if (duration < absl::Milliseconds(1)) return "less than 1ms";
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(1)));
}

std::string Named(const RankPlacement& rank) {
  return absl::StrCat("rank ", rank.rank.value(), " (worker ", rank.worker_id, ")");
}

}  // namespace

const char* FormingPhaseName(FormingPhase phase) {
  switch (phase) {
    case FormingPhase::kAssign:
      return "assign";
    case FormingPhase::kLoad:
      return "load";
    case FormingPhase::kWarmup:
      return "warmup";
    case FormingPhase::kCapture:
      return "capture";
    case FormingPhase::kActivate:
      return "activate";
  }
  return "?";
}

Replica::Replica(ReplicaIndex index, const Options& options, const Ports& ports)
    : options_(options), ports_(ports) {
  status_.replica = index;
}

bool Replica::Plannable() const {
  if (status_.state == ReplicaState::kFailed) return plan_refused_;
  return status_.state == ReplicaState::kWaiting && ports_.clock.Now() >= retry_at_;
}

bool Replica::Occupies(const std::string& worker_id) const {
  const bool running =
      status_.state == ReplicaState::kForming || status_.state == ReplicaState::kServing;
  if (!running && releasing_ == 0) return false;
  const auto& ranks = status_.topology->ranks;
  return std::any_of(ranks.begin(), ranks.end(),
                     [&](const RankPlacement& rank) { return rank.worker_id == worker_id; });
}

std::optional<GlobalRank> Replica::RankOf(const std::string& worker_id,
                                          Incarnation incarnation) const {
  if (!status_.topology.has_value()) return std::nullopt;
  for (const RankPlacement& rank : status_.topology->ranks) {
    if (rank.worker_id == worker_id && rank.incarnation == incarnation) return rank.rank;
  }
  return std::nullopt;
}

std::string Replica::PhaseOf(GlobalRank rank) const {
  if (status_.state == ReplicaState::kServing) return "serving";
  if (status_.state == ReplicaState::kForming) {
    return runs_[static_cast<size_t>(rank.value())].phase;
  }
  const ErrorDetail detail = DetailOf(status_.failure);
  const bool lost = detail.reason == ErrorReason::kRankLost &&
                    std::find(detail.ranks.begin(), detail.ranks.end(), rank) != detail.ranks.end();
  return lost ? detail.phase : "";
}

void Replica::Form(const Topology& topology) {
  status_ = {.replica = status_.replica, .topology = topology};
  SetState(ReplicaState::kForming, absl::OkStatus());
  runs_.assign(topology.ranks.size(), {});
  plan_refused_ = false;
  retry_ = false;
  ports_.board.BeginEpoch(topology);
  const ParallelConfig& config = topology.config;
  Emit(EventKind::kTopologyPlanned,
       absl::StrCat("planned tp=", config.tp, " cp=", config.cp, " on ",
                    absl::StrJoin(topology.ranks, " ", [](std::string* out, const auto& rank) {
                      absl::StrAppend(out, rank.worker_id);
                    })));
  StartPhase(FormingPhase::kAssign);
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

void Replica::StartPhase(FormingPhase phase) {
  phase_ = phase;
  phase_started_ = ports_.clock.Now();
  for (RankRun& run : runs_) {
    run.done = false;
    run.phase = FormingPhaseName(phase);
  }
  for (const RankPlacement& rank : status_.topology->ranks) StartRank(phase, rank.rank);
}

void Replica::StartRank(FormingPhase phase, GlobalRank rank) {
  const Epoch epoch = status_.topology->epoch;
  const bool is_short = phase == FormingPhase::kAssign || phase == FormingPhase::kActivate;
  ports_.client.RunPhase(
      phase, TargetOf(rank), *status_.topology, options_.phase_timeout,
      is_short ? options_.phase_timeout : kPhaseDeadline,
      [this, epoch, rank](const Progress& progress) {
        ports_.deliver([&] { OnProgress(epoch, rank, progress); });
      },
      [this, epoch, phase, rank](absl::StatusOr<PhaseResult> result) {
        ports_.deliver([&] { OnPhaseDone(epoch, phase, rank, std::move(result)); });
      });
}

void Replica::OnProgress(Epoch epoch, GlobalRank rank, const Progress& progress) {
  if (!IsCurrent(epoch) || status_.state != ReplicaState::kForming) return;
  if (!progress.phase.empty()) RunOf(rank).phase = progress.phase;
  ports_.membership.ReportProgress(PlacementOf(rank).worker_id, status_.replica, epoch, progress);
}

void Replica::OnPhaseDone(Epoch epoch, FormingPhase phase, GlobalRank rank,
                          absl::StatusOr<PhaseResult> result) {
  if (!IsCurrent(epoch) || status_.state != ReplicaState::kForming || phase != phase_) return;
  if (!result.ok()) return FailRank(rank, result.status());
  RankRun& run = RunOf(rank);
  run.done = true;
  if (phase == FormingPhase::kWarmup || phase == FormingPhase::kCapture) {
    run.result = *std::move(result);
  }
  const bool all = std::all_of(runs_.begin(), runs_.end(), [](const RankRun& r) { return r.done; });
  if (all) FinishPhase();
}

void Replica::FinishPhase() {
  const absl::Duration took = ports_.clock.Now() - phase_started_;
  status_.phases.push_back({FormingPhaseName(phase_), took});
  ++version_;
  Event event{.kind = EventKind::kPhaseDone,
              .replica = status_.replica,
              .epoch = status_.topology->epoch,
              .phase = FormingPhaseName(phase_),
              .message = absl::StrCat(FormingPhaseName(phase_), " done on ", runs_.size(),
                                      " ranks in ", Readable(took))};
  ports_.events.Append(std::move(event));
  switch (phase_) {
    case FormingPhase::kAssign:
      return StartPhase(FormingPhase::kLoad);
    case FormingPhase::kLoad:
      return StartPhase(FormingPhase::kWarmup);
    case FormingPhase::kWarmup:
      return StartPhase(FormingPhase::kCapture);
    case FormingPhase::kCapture:
      if (absl::Status agreed = CheckAgreement(); !agreed.ok()) return FailEpoch(agreed);
      return StartPhase(FormingPhase::kActivate);
    case FormingPhase::kActivate:
      return Serve();
  }
}

absl::Status Replica::CheckAgreement() const {
  const std::string& leader = runs_.front().result.agreement_digest;
  ErrorDetail detail{.reason = ErrorReason::kDisagreement,
                     .epoch = status_.topology->epoch,
                     .phase = "capture/agree"};
  std::vector<std::string> odd;
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (runs_[i].result.agreement_digest == leader) continue;
    const RankPlacement& rank = status_.topology->ranks[i];
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    odd.push_back(absl::StrCat(Named(rank), " has ", runs_[i].result.agreement_digest));
  }
  if (odd.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted,
                   absl::StrCat("ranks agreed on different digests: rank 0 has ", leader, ", ",
                                absl::StrJoin(odd, ", ")),
                   detail);
}

void Replica::Serve() {
  for (const RankPlacement& rank : status_.topology->ranks) {
    PhaseResult& result = RunOf(rank.rank).result;
    status_.ledgers.push_back({.rank = rank.rank,
                               .entries = std::move(result.ledger),
                               .kv_blocks = result.kv_blocks,
                               .block_tokens = result.block_tokens});
  }
  status_.serving_since = ports_.clock.Now();
  SetState(ReplicaState::kServing, absl::OkStatus());
  Emit(EventKind::kServing, absl::StrCat("serving on ", runs_.size(), " ranks"));
}

void Replica::OnWorkerLost(const WorkerInfo& worker, const absl::Status& reason) {
  const auto rank = RankOf(worker.worker_id, worker.incarnation);
  if (!rank.has_value()) return;
  switch (status_.state) {
    case ReplicaState::kForming:
    case ReplicaState::kServing:
      return FailRank(*rank, reason);
    case ReplicaState::kFailed:
      if (plan_refused_) return;
      retry_ = true;
      if (releasing_ == 0) OnAllReleased();
      return;
    case ReplicaState::kWaiting:
      return;
  }
}

void Replica::Tick() {
  if (status_.state == ReplicaState::kForming) FailStalledRanks();
  if (status_.state == ReplicaState::kServing) FailReportedRank();
}

void Replica::FailStalledRanks() {
  const absl::Time now = ports_.clock.Now();
  ErrorDetail detail{.reason = ErrorReason::kRankMissing, .epoch = status_.topology->epoch};
  std::vector<std::string> stalled;
  for (const RankPlacement& rank : status_.topology->ranks) {
    const RankRun& run = RunOf(rank.rank);
    const auto view = ports_.membership.Find(rank.worker_id);
    if (run.done || !view.has_value()) continue;
    const absl::Duration still = now - std::max(phase_started_, view->last_progress);
    if (still <= options_.phase_timeout + kStallMargin) continue;
    if (detail.phase.empty()) detail.phase = run.phase;
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    stalled.push_back(
        absl::StrCat(Named(rank), " made no progress in ", run.phase, " for ", Readable(still)));
  }
  if (stalled.empty()) return;
  FailEpoch(MakeError(absl::StatusCode::kDeadlineExceeded, absl::StrJoin(stalled, "; "), detail));
}

void Replica::FailReportedRank() {
  for (const RankPlacement& rank : status_.topology->ranks) {
    const auto view = ports_.membership.Find(rank.worker_id);
    if (!view.has_value()) continue;
    for (const EpochReport& report : view->epochs) {
      const bool failed = report.replica == status_.replica && IsCurrent(report.epoch) &&
                          report.state == WorkerState::kFailed;
      if (failed) {
        return FailRank(
            rank.rank, absl::AbortedError(absl::StrCat("its worker gave the epoch up after step ",
                                                       report.step.value(), ": ", report.failure)));
      }
    }
  }
}

void Replica::FailRank(GlobalRank rank, const absl::Status& error) {
  ErrorDetail detail = DetailOf(error);
  std::string message(error.message());
  detail.epoch = status_.topology->epoch;
  if (detail.phase.empty()) detail.phase = PhaseOf(rank);
  if (detail.ranks.empty()) {
    const bool lost = detail.reason == ErrorReason::kRankLost;
    if (detail.reason == ErrorReason::kUnspecified) detail.reason = ErrorReason::kRankFailed;
    detail.ranks = {rank};
    detail.workers = {PlacementOf(rank).worker_id};
    message =
        absl::StrCat(Named(PlacementOf(rank)), lost ? " was lost" : " failed",
                     detail.phase == "serving" ? " while " : " in ", detail.phase, ": ", message);
  }
  FailEpoch(MakeError(error.code(), message, detail));
}

void Replica::FailEpoch(const absl::Status& reason) {
  const ErrorDetail detail = DetailOf(reason);
  const Topology& topology = *status_.topology;
  // What fails while it forms fails again; what served can serve again.
  const bool served = status_.state == ReplicaState::kServing;
  retry_ = served || detail.reason == ErrorReason::kRankLost;
  if (served && ports_.clock.Now() - status_.serving_since >= kSteady) failures_ = 0;
  // Even the first pause is there for a reason: a worker whose call broke may be dead, and is a
  // member until its lease tells.
  retry_at_ = ports_.clock.Now() + std::min(kLongestPause, kFirstPause * (1 << failures_));
  failures_ = std::min(failures_ + 1, kMostDoublings);
  for (const RankPlacement& rank : topology.ranks) {
    ports_.membership.Abort(
        rank.worker_id, rank.incarnation,
        {.replica = topology.replica, .epoch = topology.epoch, .reason = reason});
  }
  ports_.board.FailEpoch(topology.replica, topology.epoch, reason);
  SetState(ReplicaState::kFailed, reason);
  Event event{.kind = EventKind::kEpochFailed,
              .replica = topology.replica,
              .epoch = topology.epoch,
              .phase = detail.phase,
              .message = std::string(reason.message())};
  if (!detail.ranks.empty()) event.rank = detail.ranks.front();
  if (!detail.workers.empty()) event.worker_id = detail.workers.front();
  ports_.events.Append(std::move(event));
  ReleaseRanks();
}

void Replica::ReleaseRanks() {
  const Epoch epoch = status_.topology->epoch;
  for (const RankPlacement& rank : status_.topology->ranks) {
    const auto view = ports_.membership.Find(rank.worker_id);
    if (!view.has_value() || view->info.incarnation != rank.incarnation) continue;
    ++releasing_;
    ports_.client.Release(
        TargetOf(rank.rank), status_.failure, options_.release_timeout,
        [this, epoch](const absl::Status&) { ports_.deliver([&] { OnRankReleased(epoch); }); });
  }
  if (releasing_ == 0) OnAllReleased();
}

void Replica::OnRankReleased(Epoch epoch) {
  if (!IsCurrent(epoch) || releasing_ == 0) return;
  ++version_;
  if (--releasing_ == 0) OnAllReleased();
}

void Replica::OnAllReleased() {
  ports_.board.RetireEpoch(status_.replica, status_.topology->epoch);
  if (retry_) SetState(ReplicaState::kWaiting, status_.failure);
}

bool Replica::IsCurrent(Epoch epoch) const {
  return status_.topology.has_value() && status_.topology->epoch == epoch;
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

const RankPlacement& Replica::PlacementOf(GlobalRank rank) const {
  return status_.topology->ranks[static_cast<size_t>(rank.value())];
}

RankTarget Replica::TargetOf(GlobalRank rank) const {
  return {.placement = PlacementOf(rank),
          .replica = status_.replica,
          .epoch = status_.topology->epoch,
          .term = status_.topology->term};
}

}  // namespace muster
