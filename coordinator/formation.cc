#include "coordinator/formation.h"

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
// The leader goes back to the former epoch by itself first, and says so.
constexpr absl::Duration kTakeoverMargin = absl::Seconds(5);

}  // namespace

std::string NamedRank(const RankPlacement& rank) {
  return absl::StrCat("rank ", rank.rank.value(), " (worker ", rank.worker_id, ")");
}

std::string ReadableTime(absl::Duration duration) {
  if (duration < absl::Milliseconds(1)) return "less than 1ms";
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(1)));
}

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

Formation::Formation(FormationPlan plan, const Options& options, const Ports& ports,
                     FormationOwner& owner)
    : plan_(std::move(plan)),
      options_(options),
      ports_(ports),
      owner_(owner),
      runs_(plan_.topology.ranks.size()) {}

void Formation::Start() {
  ports_.board.BeginEpoch(topology());
  StartPhase(FormingPhase::kAssign);
}

void Formation::Activate(absl::Duration takeover_timeout) {
  takeover_timeout_ = takeover_timeout;
  StartPhase(FormingPhase::kActivate);
}

void Formation::MarkServing() { stage_ = Stage::kServing; }

void Formation::StartPhase(FormingPhase phase) {
  phase_ = phase;
  phase_started_ = ports_.clock.Now();
  const bool leader_alone = phase == FormingPhase::kActivate && follows();
  for (RankRun& run : runs_) {
    run.done = leader_alone && &run != &runs_.front();
    run.progress = {.phase = FormingPhaseName(phase)};
  }
  const PhaseInputs inputs = InputsOf(phase);
  for (const RankPlacement& rank : topology().ranks) {
    if (!RunOf(rank.rank).done) StartRank(rank.rank, inputs);
  }
}

PhaseInputs Formation::InputsOf(FormingPhase phase) const {
  PhaseInputs inputs{.wait_bound = options_.phase_timeout, .deadline = kPhaseDeadline};
  if (phase == FormingPhase::kAssign) {
    inputs.deadline = options_.phase_timeout;
    inputs.predecessor = plan_.predecessor;
    inputs.buckets = plan_.buckets;
    inputs.reserve_bytes = plan_.reserve_bytes;
  }
  if (phase == FormingPhase::kActivate) {
    inputs.deadline = options_.phase_timeout;
    if (!follows()) return inputs;
    inputs.deadline = takeover_timeout_ + kTakeoverMargin;
    inputs.from_epoch = plan_.predecessor->epoch;
    inputs.agreement_digest = runs_.front().result.agreement_digest;
    inputs.takeover_timeout = takeover_timeout_;
    inputs.drop = plan_.drop;
  }
  return inputs;
}

void Formation::StartRank(GlobalRank rank, const PhaseInputs& inputs) {
  const Ports* const ports = &ports_;
  const std::weak_ptr<Formation> weak = weak_from_this();
  const FormingPhase phase = phase_;
  ports_.client.RunPhase(
      phase, TargetOf(rank), topology(), inputs,
      [ports, weak, rank](const Progress& progress) {
        ports->deliver([&] {
          if (const auto self = weak.lock()) self->TakeProgress(rank, progress);
        });
      },
      [ports, weak, phase, rank](absl::StatusOr<PhaseResult> result) {
        ports->deliver([&] {
          if (const auto self = weak.lock()) self->TakeResult(phase, rank, std::move(result));
        });
      });
}

void Formation::TakeProgress(GlobalRank rank, const Progress& progress) {
  if (stage_ != Stage::kForming) return;
  if (!progress.phase.empty()) RunOf(rank).progress = progress;
  ports_.membership.ReportProgress(PlacementOf(rank).worker_id, topology().replica,
                                   topology().epoch, progress);
  owner_.OnProgress(*this);
}

void Formation::TakeResult(FormingPhase phase, GlobalRank rank,
                           absl::StatusOr<PhaseResult> result) {
  if (stage_ != Stage::kForming || phase != phase_) return;
  if (!result.ok()) return Fail(Blame(rank, result.status()));
  RankRun& run = RunOf(rank);
  run.done = true;
  if (phase == FormingPhase::kActivate) {
    run.result.takeover = result->takeover;
  } else if (phase == FormingPhase::kWarmup || phase == FormingPhase::kCapture) {
    run.result = *std::move(result);
  }
  const bool all = std::all_of(runs_.begin(), runs_.end(), [](const RankRun& r) { return r.done; });
  if (all) FinishPhase();
}

void Formation::FinishPhase() {
  owner_.OnPhaseDone(*this, phase_, ports_.clock.Now() - phase_started_);
  switch (phase_) {
    case FormingPhase::kAssign:
      return StartPhase(FormingPhase::kLoad);
    case FormingPhase::kLoad:
      return StartPhase(FormingPhase::kWarmup);
    case FormingPhase::kWarmup:
      return StartPhase(FormingPhase::kCapture);
    case FormingPhase::kCapture:
      if (absl::Status agreed = CheckAgreement(); !agreed.ok()) return Fail(agreed);
      return owner_.OnAgreed(*this);
    case FormingPhase::kActivate:
      stage_ = Stage::kServing;
      return owner_.OnActivated(*this, runs_.front().result.takeover);
  }
}

absl::Status Formation::CheckAgreement() const {
  const std::string& leader = runs_.front().result.agreement_digest;
  ErrorDetail detail{
      .reason = ErrorReason::kDisagreement, .epoch = topology().epoch, .phase = "capture/agree"};
  std::vector<std::string> odd;
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (runs_[i].result.agreement_digest == leader) continue;
    const RankPlacement& rank = topology().ranks[i];
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    odd.push_back(absl::StrCat(NamedRank(rank), " has ", runs_[i].result.agreement_digest));
  }
  if (odd.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted,
                   absl::StrCat("ranks agreed on different digests: rank 0 has ", leader, ", ",
                                absl::StrJoin(odd, ", ")),
                   detail);
}

void Formation::Tick() {
  const bool takes_over = phase_ == FormingPhase::kActivate && follows();
  if (stage_ != Stage::kForming || takes_over) return;
  const absl::Time now = ports_.clock.Now();
  ErrorDetail detail{.reason = ErrorReason::kRankMissing, .epoch = topology().epoch};
  std::vector<std::string> stalled;
  for (const RankPlacement& rank : topology().ranks) {
    const RankRun& run = RunOf(rank.rank);
    const auto view = ports_.membership.Find(rank.worker_id);
    if (run.done || !view.has_value()) continue;
    const absl::Duration still = now - std::max(phase_started_, view->last_progress);
    if (still <= options_.phase_timeout + kStallMargin) continue;
    if (detail.phase.empty()) detail.phase = run.progress.phase;
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    stalled.push_back(absl::StrCat(NamedRank(rank), " made no progress in ", run.progress.phase,
                                   " for ", ReadableTime(still)));
  }
  if (stalled.empty()) return;
  Fail(MakeError(absl::StatusCode::kDeadlineExceeded, absl::StrJoin(stalled, "; "), detail));
}

void Formation::Fail(const absl::Status& reason) { owner_.OnFailed(*this, reason); }

void Formation::Abort(const absl::Status& reason) {
  if (std::exchange(aborted_, true)) return;
  for (const RankPlacement& rank : topology().ranks) {
    ports_.membership.Abort(
        rank.worker_id, rank.incarnation,
        {.replica = topology().replica, .epoch = topology().epoch, .reason = reason});
  }
  ports_.board.FailEpoch(topology().replica, topology().epoch, reason);
}

void Formation::Drain(absl::Duration timeout) {
  const Ports* const ports = &ports_;
  const std::weak_ptr<Formation> weak = weak_from_this();
  ports_.client.Drain(TargetOf(GlobalRank(0)), timeout,
                      [ports, weak](const absl::StatusOr<int>& sequences) {
                        ports->deliver([&] {
                          const auto self = weak.lock();
                          if (self != nullptr) self->owner_.OnDrained(*self, sequences);
                        });
                      });
}

void Formation::Release(const absl::Status& why) {
  stage_ = Stage::kOver;
  const Ports* const ports = &ports_;
  const std::weak_ptr<Formation> weak = weak_from_this();
  for (const RankPlacement& rank : topology().ranks) {
    const auto view = ports_.membership.Find(rank.worker_id);
    if (!view.has_value() || view->info.incarnation != rank.incarnation) continue;
    releasing_.insert(rank.worker_id);
    ports_.client.Release(TargetOf(rank.rank), why, options_.release_timeout,
                          [ports, weak, id = rank.worker_id](const absl::Status&) {
                            ports->deliver([&] {
                              if (const auto self = weak.lock()) self->TakeRelease(id);
                            });
                          });
  }
  if (releasing()) return;
  ports_.board.RetireEpoch(topology().replica, topology().epoch);
  owner_.OnReleased(*this);
}

void Formation::TakeRelease(const std::string& worker_id) {
  owner_.OnProgress(*this);
  if (releasing_.erase(worker_id) == 0 || releasing()) return;
  ports_.board.RetireEpoch(topology().replica, topology().epoch);
  owner_.OnReleased(*this);
}

std::optional<GlobalRank> Formation::RankOf(const std::string& worker_id,
                                            Incarnation incarnation) const {
  for (const RankPlacement& rank : topology().ranks) {
    if (rank.worker_id == worker_id && rank.incarnation == incarnation) return rank.rank;
  }
  return std::nullopt;
}

bool Formation::Has(const std::string& worker_id) const {
  const auto& ranks = topology().ranks;
  return std::any_of(ranks.begin(), ranks.end(),
                     [&](const RankPlacement& rank) { return rank.worker_id == worker_id; });
}

std::string Formation::PhaseOf(GlobalRank rank) const {
  return stage_ == Stage::kServing ? "serving" : RunOf(rank).progress.phase;
}

std::vector<RankProgress> Formation::progress() const {
  std::vector<RankProgress> ranks;
  for (const RankPlacement& rank : topology().ranks) {
    ranks.push_back({rank.rank, rank.worker_id, RunOf(rank.rank).progress});
  }
  return ranks;
}

std::vector<RankProgress> Formation::Unfinished() const {
  std::vector<RankProgress> ranks = progress();
  std::erase_if(ranks, [&](const RankProgress& it) { return RunOf(it.rank).done; });
  return ranks;
}

std::vector<RankLedger> Formation::ledgers() const {
  std::vector<RankLedger> ledgers;
  for (const RankPlacement& rank : topology().ranks) {
    const PhaseResult& result = RunOf(rank.rank).result;
    ledgers.push_back({.rank = rank.rank,
                       .entries = result.ledger,
                       .kv_blocks = result.kv_blocks,
                       .block_tokens = result.block_tokens,
                       .buckets = result.buckets});
  }
  return ledgers;
}

absl::Status Formation::Blame(GlobalRank rank, const absl::Status& error) const {
  ErrorDetail detail = DetailOf(error);
  std::string message(error.message());
  detail.epoch = topology().epoch;
  if (detail.phase.empty()) detail.phase = PhaseOf(rank);
  if (detail.ranks.empty()) {
    const bool lost = detail.reason == ErrorReason::kRankLost;
    if (detail.reason == ErrorReason::kUnspecified) detail.reason = ErrorReason::kRankFailed;
    detail.ranks = {rank};
    detail.workers = {PlacementOf(rank).worker_id};
    message =
        absl::StrCat(NamedRank(PlacementOf(rank)), lost ? " was lost" : " failed",
                     detail.phase == "serving" ? " while " : " in ", detail.phase, ": ", message);
  }
  return MakeError(error.code(), message, detail);
}

absl::Status Formation::ReportedFailure() const {
  for (const RankPlacement& rank : topology().ranks) {
    const auto view = ports_.membership.Find(rank.worker_id);
    if (!view.has_value()) continue;
    for (const EpochReport& report : view->epochs) {
      if (report.replica != topology().replica || report.epoch != topology().epoch) continue;
      // Nobody here drains: it has handed over to an epoch that was then given up.
      if (rank.rank == GlobalRank(0) && report.state == WorkerState::kDraining) {
        return Blame(rank.rank, absl::AbortedError("it has handed over, and none took over"));
      }
      if (report.state != WorkerState::kFailed) continue;
      return Blame(rank.rank,
                   absl::AbortedError(absl::StrCat("its worker gave the epoch up after step ",
                                                   report.step.value(), ": ", report.failure)));
    }
  }
  return absl::OkStatus();
}

const RankPlacement& Formation::PlacementOf(GlobalRank rank) const {
  return topology().ranks[static_cast<size_t>(rank.value())];
}

RankTarget Formation::TargetOf(GlobalRank rank) const {
  return {.placement = PlacementOf(rank),
          .replica = topology().replica,
          .epoch = topology().epoch,
          .term = std::max(ports_.term(), topology().term)};
}

}  // namespace muster
