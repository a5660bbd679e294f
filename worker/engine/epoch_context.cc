#include "worker/engine/epoch_context.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/text.h"

namespace muster {
namespace {

// Where the deadline has passed: long enough to learn who is missing.
constexpr absl::Duration kShortestWait = absl::Milliseconds(1);

absl::StatusOr<std::vector<Group>> GroupsOf(const Topology& topology, GlobalRank rank) {
  std::vector<Group> groups;
  for (const GroupSpec& spec : topology.groups) {
    if (std::find(spec.ranks.begin(), spec.ranks.end(), rank) == spec.ranks.end()) continue;
    MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(spec, rank));
    groups.push_back(group);
  }
  if (groups.empty() || groups[0].kind() != GroupKind::kStage) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank.value(), " is in no stage of the topology"));
  }
  return groups;
}

// Room in the block tables for the longest sequence.
StepLimits LimitsFor(StepLimits limits, const ModelSpec& model, int cp) {
  const int64_t blocks = KvBlocksFor(model.max_positions);
  limits.max_local_blocks = static_cast<int>((blocks + cp - 1) / cp);
  return limits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EpochContext>> EpochContext::Create(const Options& options,
                                                                   Assignment assignment) {
  const Topology& topology = assignment.topology;
  const ModelSpec& model = assignment.model.spec;
  MUSTER_ASSIGN_OR_RETURN(std::vector<Group> groups, GroupsOf(topology, assignment.rank));
  MUSTER_ASSIGN_OR_RETURN(const RankShape shape,
                          RankShape::Create(model, topology.config, assignment.rank));
  Options sized = options;
  sized.limits = LimitsFor(options.limits, model, topology.config.cp);
  if (!options.graphs) sized.buckets.clear();
  return absl::WrapUnique(new EpochContext(sized, std::move(assignment), shape, std::move(groups)));
}

EpochContext::EpochContext(const Options& options, Assignment assignment, const RankShape& shape,
                           std::vector<Group> groups)
    : options_(options),
      assignment_(std::move(assignment)),
      shape_(shape),
      groups_(std::move(groups)),
      log_(topology().replica, epoch(), rank()),
      spans_(options_.spans, topology().replica, epoch(), rank()) {
  EngineBackend& backend = assignment_.backend;
  CollectiveSet::Options set_options;
  set_options.fusion = options_.fusion;
  set_options.on_phase = [this](absl::string_view phase) { EnterPhase(phase); };
  set_options.exclusively = [this](absl::FunctionRef<absl::Status()> work) {
    return Exclusively(work);
  };
  collectives_ = std::make_unique<CollectiveSet>(groups_, backend.collectives(), backend.device(),
                                                 rendezvous(), ledger_, std::move(set_options));
  if (follows() && assignment_.predecessor->handover != nullptr) {
    absl::MutexLock lock(&mu_);
    former_ = std::move(assignment_.predecessor->handover);
    former_->SetSuccessor([this](const absl::Status& reason) { Abort(reason); });
  }
  // Started here, where the preparing thread has not stood back yet: a thread has the priority of
  // whoever made it.
  thread_ = std::thread([this] {
    if (AwaitStart()) Serve();
  });
}

EpochContext::~EpochContext() {
  Abort(MakeError(absl::StatusCode::kUnavailable,
                  absl::StrCat("epoch ", epoch().value(), " was released"),
                  {.reason = ErrorReason::kWrongState, .epoch = epoch(), .retriable = true}));
  GiveBack();
}

void EpochContext::GiveBack() {
  if (thread_.joinable()) thread_.join();
  // A step that failed half-way may have left work behind, in memory that goes now.
  if (stream_ != nullptr) stream_->Synchronize().IgnoreError();
  LeaveFormer();
  if (const auto next = this->next()) next->AwaitUnused();
  {
    absl::MutexLock lock(&mu_);
    next_ = nullptr;
    migration_ = nullptr;
  }
  runner_.reset();
  sampler_.reset();
  model_.reset();
  mover_.reset();
  kv_.reset();
  ops_.reset();
  stream_.reset();
  {
    absl::MutexLock lock(&mu_);
    ring_.reset();
  }
  collectives_->GiveBack();
  loaded_.reset();
  reserve_ = LedgerCharge();
}

absl::Status EpochContext::RunPhase(WorkerState from, WorkerState to,
                                    absl::FunctionRef<absl::Status()> phase) {
  {
    absl::MutexLock lock(&mu_);
    MUSTER_RETURN_IF_ERROR(failure_);
    if (state_ != from) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          absl::StrCat("epoch ", epoch().value(), " is ", WorkerStateName(state_), " on rank ",
                       rank().value(), "; this needs ", WorkerStateName(from)),
          {.reason = ErrorReason::kWrongState, .epoch = epoch()});
    }
  }
  if (const absl::Status status = phase(); !status.ok()) {
    Abort(status);
    GiveBack();
    return failure();
  }
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(failure_);
  state_ = to;
  return absl::OkStatus();
}

absl::Status EpochContext::Activate() {
  return RunPhase(WorkerState::kAgreed, WorkerState::kServing, [this] {
    if (follows()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("epoch ", epoch().value(), " takes over from epoch ",
                                    assignment_.predecessor->topology.epoch.value(),
                                    "; it cannot serve beside it"),
                       {.reason = ErrorReason::kWrongState, .epoch = epoch()});
    }
    EnterPhase("serving");
    if (const auto engine = this->engine()) engine->Open();
    return absl::OkStatus();
  });
}

absl::Status EpochContext::Drain(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mu_);
    MUSTER_RETURN_IF_ERROR(failure_);
    const bool followed = passed_on_ || (next_ != nullptr && !next_->left());
    if (state_ == WorkerState::kServing && !followed) state_ = WorkerState::kDraining;
    if (state_ != WorkerState::kDraining || followed) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("epoch ", epoch().value(), " is ", WorkerStateName(state_),
                                    followed ? " and another is to take over from it"
                                             : " and serves nothing that could be drained"),
                       {.reason = ErrorReason::kWrongState, .epoch = epoch()});
    }
  }
  EnterPhase("drain");
  const auto engine = this->engine();
  if (engine == nullptr) return absl::OkStatus();
  const absl::Status drained = engine->Drain(timeout);
  const std::string held = Counted(static_cast<uint64_t>(engine->capacity().sequences), "sequence");
  const Logger logger(topology().replica, epoch(), rank());
  if (!drained.ok()) {
    const std::string left = absl::StrCat(drained.message(), ", and ", held, " held");
    logger.Warning("drained in part: ", left);
    return absl::Status(drained.code(), left);
  }
  logger.Info("drained: all requests are answered, ", held, " held");
  return absl::OkStatus();
}

void EpochContext::Abort(const absl::Status& reason) {
  bool passed_on = false;
  std::shared_ptr<Engine> engine;
  std::shared_ptr<Handover> former, next;
  std::shared_ptr<Migration> migration;
  {
    absl::MutexLock lock(&mu_);
    if (!failure_.ok()) return;
    failure_ = reason;
    state_ = WorkerState::kFailed;
    passed_on = passed_on_;
    // Some may not have read yet that it was passed on.
    if (ring_ != nullptr && !passed_on) ring_->Abort(reason);
    engine = engine_;
    former = former_;
    next = next_;
    migration = migration_;
  }
  if (!passed_on) {
    collectives_->Abort(reason);
    if (engine != nullptr) engine->Stop(reason);
    if (next != nullptr) next->Close(reason);
  }
  rendezvous().Cancel(reason);
  if (former != nullptr) former->GiveUp(reason);
  if (migration != nullptr) migration->Fail(reason);
  assignment_.on_failed(reason);
}

absl::Status EpochContext::FailOthers(const absl::Status& status) {
  if (stage().size() > 1) rendezvous().Fail(stage(), status);
  collectives_->Abort(status);
  return status;
}

absl::StatusOr<std::vector<std::string>> EpochContext::Gather(absl::string_view key,
                                                              absl::string_view value,
                                                              absl::Time deadline) {
  if (stage().size() == 1) return std::vector<std::string>{std::string(value)};
  return rendezvous().AllGather(stage(), key, value,
                                std::max(deadline - Clock::Real().Now(), kShortestWait));
}

std::shared_ptr<Engine> EpochContext::engine() const {
  absl::MutexLock lock(&mu_);
  return engine_;
}

EpochReport EpochContext::Report() const {
  absl::MutexLock lock(&mu_);
  return {.replica = topology().replica,
          .epoch = epoch(),
          .state = state_,
          .progress = progress_,
          .step = StepNumber(step_.load()),
          .kv_blocks_used = static_cast<uint64_t>(kv_used_.load()),
          .kv_blocks_total = static_cast<uint64_t>(kv_total_.load()),
          .failure = std::string(failure_.message()),
          .tokens = tokens_.load(),
          .queued_requests = engine_ == nullptr ? 0 : engine_->queue().waiting()};
}

absl::Status EpochContext::failure() const {
  absl::MutexLock lock(&mu_);
  return failure_;
}

void EpochContext::SetProgress(const Progress& progress) {
  {
    absl::MutexLock lock(&mu_);
    progress_ = progress;
  }
  assignment_.on_progress(progress);
}

void EpochContext::Start() {
  absl::MutexLock lock(&mu_);
  started_ = true;
}

bool EpochContext::AwaitStart() {
  absl::MutexLock lock(&mu_);
  const auto decided = [this]()
                           ABSL_SHARED_LOCKS_REQUIRED(mu_) { return started_ || !failure_.ok(); };
  mu_.Await(absl::Condition(&decided));
  return started_;
}

void EpochContext::Serve() {
  const absl::Status ended = leads() ? Lead() : Follow();
  NotePause();  // of a follower that is given back before it has read how the resize ended
  if (ended.ok()) return EndReign();
  if (!failure().ok()) return;
  const bool in_order = DetailOf(ended).reason == ErrorReason::kWrongState;
  const std::string line =
      absl::StrCat("the epoch ends after step ", step_.load(), ": ", ended.message());
  in_order ? log_.Info(line) : log_.Error(line);
  Abort(ended);
}

absl::Status EpochContext::Lead() {
  Engine::Means means{.epoch = epoch(),
                      .relay = *sender_,
                      .runner = *runner_,
                      .spans = spans_,
                      .step_timeout = options_.step_timeout,
                      .on_change = [this](StepNumber last, int64_t used) { NoteStep(last, used); },
                      .on_tokens = [this](int tokens) { tokens_ += static_cast<uint64_t>(tokens); },
                      .on_expired = assignment_.on_client_expired,
                      .known_failure = [this] { return failure(); }};
  if (follows()) MUSTER_RETURN_IF_ERROR(TakeTheLead(means));
  const std::shared_ptr<Engine> engine = this->engine();
  return engine->Run(means);
}

absl::Status EpochContext::Follow() {
  const StepBounds bounds{.limits = options_.limits,
                          .vocabulary = model().spec.vocabulary,
                          .max_positions = model().spec.max_positions,
                          .layers = model_->layers(),
                          .cp = shape_.cp_size,
                          .arena_blocks = kv_->blocks(),
                          .other_cp = follows() ? assignment_.predecessor->topology.config.cp : 1};
  RelayReceiver receiver(epoch(), rank(), *ring_);
  Step step;
  bool last = false;
  while (!last) {
    MUSTER_RETURN_IF_ERROR(receiver.Receive(bounds, step));
    MUSTER_ASSIGN_OR_RETURN(last, Obey(step));
    tokens_ += step.rows.size();
    NoteStep(step.number, runner_->kv_blocks_used());
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> EpochContext::Obey(const Step& step) {
  const std::shared_ptr<Handover> next = this->next();
  switch (step.kind) {
    case StepKind::kRun:
      MUSTER_RETURN_IF_ERROR(runner_->Run(step));
      runner_->WriteSpans(step);
      break;
    case StepKind::kSlot:
      if (next != nullptr) next->Park();
      break;
    case StepKind::kSeal:
      MUSTER_RETURN_IF_ERROR(SealBlocks(step, shape_.cp_rank, *kv_->arena()));
      break;
    case StepKind::kHold:
      held_ = Clock::Real().Now();
      break;  // whatever comes next is waited for anyway
    case StepKind::kResume:
      NotePause();
      if (next != nullptr) next->StopMoves();
      break;
    case StepKind::kPull:
      MUSTER_RETURN_IF_ERROR(Pull(step));
      break;
    case StepKind::kSwitch:
      if (!follows() || reigned_) {
        NotePause();
        MUSTER_RETURN_IF_ERROR(PassOn());
        return true;
      }
      MUSTER_RETURN_IF_ERROR(BeginReign(nullptr));
      break;
  }
  return false;
}

void EpochContext::NotePause() {
  const absl::Time begun = std::exchange(held_, absl::InfiniteFuture());
  if (begun != absl::InfiniteFuture()) spans_.WritePause(begun);
}

void EpochContext::NoteStep(StepNumber step, int64_t kv_used) {
  step_ = step.value();
  kv_used_ = kv_used;
  assignment_.on_progress({.phase = "serving", .done = step.value()});
}

}  // namespace muster
