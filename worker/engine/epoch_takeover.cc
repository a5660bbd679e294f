// EpochContext: following an epoch that serves, and being followed.
#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/engine/epoch_context.h"

namespace muster {
namespace {

// Of a thread that prepares: a tenth of the processor time of one that serves, where both want it.
constexpr int kPreparingNice = 10;
// That the former epoch seals between two steps.
constexpr uint64_t kBatchesPerPart = 4;

}  // namespace

bool EpochContext::KeepsKv() const {
  return follows() && assignment_.predecessor->topology.config.tp == topology().config.tp;
}

bool EpochContext::KeepsPlace(GlobalRank rank) const {
  const std::vector<RankPlacement>& before = assignment_.predecessor->topology.ranks;
  const auto index = static_cast<size_t>(rank.value());
  if (index >= before.size()) return false;
  const RankPlacement& now = topology().ranks[index];
  return before[index].worker_id == now.worker_id && before[index].incarnation == now.incarnation;
}

std::shared_ptr<Handover> EpochContext::former() const {
  absl::MutexLock lock(&mu_);
  return former_;
}

std::shared_ptr<Handover> EpochContext::next() const {
  absl::MutexLock lock(&mu_);
  return next_;
}

absl::StatusOr<std::shared_ptr<Handover>> EpochContext::BeginHandover() {
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(failure_);
  const bool followed = next_ != nullptr && !next_->left();
  if (state_ != WorkerState::kServing || followed) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        followed ? absl::StrCat("another epoch is being prepared to follow epoch ", epoch().value())
                 : absl::StrCat("epoch ", epoch().value(), " is ", WorkerStateName(state_),
                                "; none can follow it"),
        {.reason = ErrorReason::kWrongState, .epoch = epoch()});
  }
  next_ = std::make_shared<Handover>(Handover::Estate{.arena = kv_->arena(),
                                                      .arena_handles = arena_handles_,
                                                      .loaded = loaded_.get(),
                                                      .engine = engine_,
                                                      .longest_slot = options_.step_timeout / 2,
                                                      .pass_on = [this] { return PassOn(); }});
  return next_;
}

void EpochContext::StandBack() const {
  if (!follows()) return;
  // What fails costs those who are served some time, and nothing else. 0: this thread.
  if (setpriority(PRIO_PROCESS, 0, kPreparingNice) != 0) {
    log_.Warning("the epoch is prepared at the priority of the one that serves");
  }
}

absl::Status EpochContext::Exclusively(absl::FunctionRef<absl::Status()> work) {
  if (!follows()) return work();
  // What serves makes way only when all are ready to use it.
  const std::string slot = absl::StrCat("slot ", ++slots_);
  MUSTER_RETURN_IF_ERROR(Gather(slot, "", deadline_).status());
  const auto former = this->former();
  return former == nullptr ? work() : former->BetweenSteps(work);
}

absl::Status EpochContext::ShareArenas(absl::Time deadline) {
  std::vector<std::string> ours = {kv_->arena()->handle()};
  if (leads() && KeepsKv()) {
    const std::vector<std::string>& before = former()->estate().arena_handles;
    ours.insert(ours.end(), before.begin(), before.end());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                          Gather("capture/kv-arenas", absl::StrJoin(ours, "\n"), deadline));
  std::vector<std::string> before;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::vector<std::string> handles = absl::StrSplit(all[i], '\n');
    arena_handles_.push_back(handles[0]);
    if (i == 0) before.assign(handles.begin() + 1, handles.end());
  }
  if (!KeepsKv()) return absl::OkStatus();
  if (const absl::Status opened = OpenSources(before); !opened.ok()) return FailOthers(opened);
  return absl::OkStatus();
}

absl::Status EpochContext::OpenSources(absl::Span<const std::string> handles) {
  const ParallelConfig& before = assignment_.predecessor->topology.config;
  if (handles.size() != static_cast<size_t>(before.world_size())) {
    return absl::DataLossError(absl::StrCat("the leader names ", handles.size(),
                                            " arenas of the epoch before, which has ",
                                            before.world_size(), " ranks"));
  }
  BlockMover::Sources sources;
  for (int cp_rank = 0; cp_rank < before.cp; ++cp_rank) {
    const int source = cp_rank * before.tp + rank().value() % before.tp;
    std::unique_ptr<KvArenaPeer>& peer = sources.emplace_back();
    if (InheritsArena() && source == rank().value()) continue;
    MUSTER_ASSIGN_OR_RETURN(
        peer, KvArenaPeer::Open(handles[static_cast<size_t>(source)], loaded_->kv_layout(),
                                assignment_.backend.kv_means()));
  }
  mover_ = std::make_shared<BlockMover>(shape_.cp_rank, kv_->arena(), std::move(sources));
  if (const auto former = this->former()) former->SetMover(mover_);
  return absl::OkStatus();
}

absl::Status EpochContext::Pull(const Step& step) {
  MUSTER_RETURN_IF_ERROR(runner_->ApplyTables(step));
  if (mover_ == nullptr) return absl::OkStatus();
  return mover_->Pull(step, Clock::Real().Now() + options_.step_timeout);
}

absl::Status EpochContext::CheckOrder(const TakeoverOrder& order) const {
  const auto refuse = [this](ErrorReason reason, absl::string_view why) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("epoch ", epoch().value(), " cannot take over: ", why),
                     {.reason = reason, .epoch = epoch()});
  };
  if (!leads() || former() == nullptr) {
    return refuse(ErrorReason::kWrongState, "this worker does not lead an epoch that serves");
  }
  const Epoch before = assignment_.predecessor->topology.epoch;
  if (order.from != before) {
    return refuse(ErrorReason::kDisagreement,
                  absl::StrCat("it follows epoch ", before.value(), ", not ", order.from.value()));
  }
  if (order.agreement_digest == captured_.agreement_digest) return absl::OkStatus();
  return refuse(ErrorReason::kDisagreement,
                absl::StrCat("its ranks agreed on ", captured_.agreement_digest, ", not on ",
                             order.agreement_digest));
}

NextDeal EpochContext::Deal() const {
  const ParallelConfig& config = topology().config;
  NextDeal deal{.cp = config.cp,
                .blocks_per_rank = kv_->blocks(),
                .keeps_kv = KeepsKv(),
                .tp = config.tp,
                .replaced = std::vector<int>(static_cast<size_t>(config.cp), 0)};
  const int before = assignment_.predecessor->topology.config.cp;
  for (int cp_rank = 0; cp_rank < std::min(config.cp, before); ++cp_rank) {
    for (int tp_rank = 0; tp_rank < config.tp; ++tp_rank) {
      if (KeepsPlace(GlobalRank(cp_rank * config.tp + tp_rank))) continue;
      ++deal.replaced[static_cast<size_t>(cp_rank)];
    }
  }
  return deal;
}

absl::StatusOr<Takeover> EpochContext::TakeOver(const TakeoverOrder& order,
                                                absl::Duration timeout) {
  const absl::Time deadline = Clock::Real().Now() + timeout;
  Takeover takeover;
  MUSTER_RETURN_IF_ERROR(
      RunPhase(WorkerState::kAgreed, WorkerState::kServing, [&]() -> absl::Status {
        MUSTER_RETURN_IF_ERROR(CheckOrder(order));
        EnterPhase("activate");
        const auto migration = std::make_shared<Migration>(
            Migration::Options{.epoch = epoch(),
                               .next = Deal(),
                               .block_bytes = static_cast<uint64_t>(kv_->arena()->block_bytes()),
                               .part_bytes = kBatchesPerPart * kv_->arena()->copier().batch_bytes(),
                               .drop = order.drop,
                               .on_progress = [this](const Progress& made) { SetProgress(made); }},
            former());
        {
          absl::MutexLock lock(&mu_);
          MUSTER_RETURN_IF_ERROR(failure_);
          migration_ = migration;
          started_ = true;
        }
        MUSTER_ASSIGN_OR_RETURN(takeover, migration->Run(deadline));
        takeover.copy_bytes_per_second = captured_.copy_rate;
        {
          absl::MutexLock lock(&mu_);
          migration_ = nullptr;
        }
        // Before anybody is told that the arenas copied from may be given back.
        DropSources();
        return absl::OkStatus();
      }));
  return takeover;
}

absl::Status EpochContext::TakeTheLead(Engine::Means& means) {
  std::shared_ptr<Migration> migration;
  {
    absl::MutexLock lock(&mu_);
    migration = migration_;
  }
  means.on_rebuild = [this](int64_t done, int64_t total) {
    SetProgress({.phase = "activate/rebuild",
                 .done = static_cast<uint64_t>(done),
                 .total = static_cast<uint64_t>(total),
                 .unit = "tokens"});
  };
  // It must not live as long as the epoch does, nor what it holds of the former one.
  means.on_begun = [this, weak = std::weak_ptr<Migration>(migration)](int64_t rebuilt) {
    if (const auto waiting = weak.lock()) spans_.WritePause(waiting->Serves(rebuilt));
    LeaveFormer();
  };
  MUSTER_RETURN_IF_ERROR(CopyParts(*migration));
  return BeginReign(migration.get());
}

absl::Status EpochContext::CopyParts(Migration& migration) {
  while (true) {
    MUSTER_ASSIGN_OR_RETURN(std::optional<Step> part, migration.NextPart());
    if (!part.has_value()) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(sender_->Send(*part, options_.step_timeout));
    MUSTER_RETURN_IF_ERROR(Pull(*part));
    MUSTER_RETURN_IF_ERROR(AwaitFollowers());
    migration.PartDone();
  }
}

absl::Status EpochContext::AwaitFollowers() {
  // Whoever has taken another step is through with those before it.
  Step nothing;
  nothing.kind = StepKind::kSeal;
  MUSTER_RETURN_IF_ERROR(sender_->Send(nothing, options_.step_timeout));
  return sender_->AwaitTaken(options_.step_timeout);
}

absl::Status EpochContext::BeginReign(Migration* migration) {
  reigned_ = true;
  const std::shared_ptr<Handover> former = this->former();
  absl::Status failed;
  {
    absl::MutexLock lock(&mu_);
    failed = failure_;
    if (failed.ok()) state_ = WorkerState::kServing;
    if (leads()) engine_ = former->estate().engine;
    // The former epoch has passed it on; an abort that came before could not stop it.
    if (leads() && !failed.ok()) engine_->Stop(failed);
  }
  EnterPhase("serving");
  // What was copied from is unmapped by the preparing thread, not by this one.
  if (former != nullptr) former->SetMover(nullptr);
  if (failed.ok()) assignment_.on_taken_over();
  if (migration != nullptr) migration->Taken();
  MUSTER_RETURN_IF_ERROR(failed);
  if (leads()) {
    Step serve;
    serve.kind = StepKind::kSwitch;
    MUSTER_RETURN_IF_ERROR(sender_->Send(serve, options_.step_timeout));
    // Before anybody may give the former epoch back: a follower that has not left it would go too.
    return AwaitFollowers();
  }
  LeaveFormer();
  return absl::OkStatus();
}

void EpochContext::DropSources() { mover_.reset(); }

void EpochContext::LeaveFormer() {
  std::shared_ptr<Handover> former;
  {
    absl::MutexLock lock(&mu_);
    former.swap(former_);
  }
  if (former != nullptr) former->Leave();
}

absl::Status EpochContext::PassOn() {
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(failure_);
  passed_on_ = true;
  state_ = WorkerState::kDraining;
  return absl::OkStatus();
}

void EpochContext::EndReign() {
  // None is to miss what ends the epoch.
  if (leads()) sender_->AwaitTaken(options_.step_timeout).IgnoreError();
  if (const auto next = this->next()) next->AwaitLeft();
  std::shared_ptr<Engine> engine;
  {
    absl::MutexLock lock(&mu_);
    engine.swap(engine_);
  }
  log_.Info("the epoch was taken over from after step ", step_.load());
  assignment_.on_passed_on();
  if (engine == nullptr) return;
  // There is no way back to this epoch, and none may take it for one that only drains.
  if (const absl::Status lost = engine->queue().stopped(); !lost.ok()) Abort(lost);
}

}  // namespace muster
