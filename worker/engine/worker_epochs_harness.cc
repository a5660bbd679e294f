#include "worker/engine/worker_epochs_harness.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster::testing {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);
constexpr uint64_t kKvMemory = 8 << 20;
constexpr uint64_t kFirstIncarnation = 100;

std::string NameOf(int rank) { return absl::StrCat("w", rank); }

Incarnation IncarnationOf(int rank) {
  return Incarnation(kFirstIncarnation + static_cast<uint64_t>(rank));
}

}  // namespace

EpochCall CallOf(Epoch epoch, const std::string& request_id) {
  return {.request_id = request_id, .term = kTestTerm, .replica = kTestReplica, .epoch = epoch};
}

Topology TopologyOf(Epoch epoch, const ParallelConfig& config) {
  Topology topology{.replica = kTestReplica, .epoch = epoch, .term = kTestTerm, .config = config};
  for (int rank = 0; rank < config.world_size(); ++rank) {
    topology.ranks.push_back({.rank = GlobalRank(rank),
                              .worker_id = NameOf(rank),
                              .incarnation = IncarnationOf(rank),
                              .address = "127.0.0.1:1"});
  }
  topology.groups = DeriveGroups(config, epoch);
  return topology;
}

EpochWatcher PendingCall::Watcher() {
  return {.on_progress =
              [this](const Progress& progress) {
                absl::MutexLock lock(&mu_);
                if (phases_.empty() || phases_.back() != progress.phase) {
                  phases_.push_back(progress.phase);
                }
              },
          .on_done =
              [this](const absl::StatusOr<EpochOutcome>& result) { promise_.set_value(result); }};
}

void PendingCall::AwaitPhase(const std::string& phase) {
  absl::MutexLock lock(&mu_);
  const auto begun = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !phases_.empty() && phases_.back() == phase;
  };
  mu_.Await(absl::Condition(&begun));
}

std::vector<std::string> PendingCall::phases() const {
  absl::MutexLock lock(&mu_);
  return phases_;
}

TestWorker::TestWorker(int rank, LocalRendezvousBoard& board, const ModelSource& model,
                       const Wrap& wrap, const Clock& clock,
                       const std::function<void(EpochContext::Options&)>& adjust)
    : rank_(rank), backend_({.ordinal = DeviceOrdinal(rank)}, {}) {
  EpochContext::Options context{.kv_memory = kKvMemory, .buckets = {4, 1}, .clock = &clock};
  adjust(context);
  epochs_ = std::make_unique<WorkerEpochs>(
      WorkerEpochs::Options{
          .worker_id = NameOf(rank), .incarnation = IncarnationOf(rank), .context = context},
      WorkerEpochs::Parts{
          .model = model,
          .backend = backend_,
          .make_rendezvous =
              [&board, wrap](ReplicaIndex, Epoch epoch) {
                return wrap(std::make_unique<LocalRendezvous>(board, epoch));
              },
          .listener = {
              .on_progress = [this](const Progress& progress) { OnProgress(progress); },
              .on_activated = [this](ReplicaIndex, Epoch epoch) { Note("activated", epoch); },
              .on_ended = [this](ReplicaIndex, Epoch epoch) { Note("ended", epoch); },
              .on_client_expired =
                  [this](ReplicaIndex, Epoch epoch, const ClientExpiry& expiry) {
                    Note("expired", epoch, absl::StrCat(" '", expiry.client_id, "'"));
                  }}});
}

absl::Status TestWorker::Assign(Epoch epoch, const ParallelConfig& config,
                                const std::optional<Topology>& predecessor) {
  return epochs_->Assign(CallOf(epoch, "assign"), {.topology = TopologyOf(epoch, config),
                                                   .rank = GlobalRank(rank_),
                                                   .predecessor = predecessor});
}

std::shared_ptr<PendingCall> TestWorker::Start(EpochCommand command, Epoch epoch,
                                               const std::string& request_id,
                                               const EpochContext::TakeoverOrder& takeover) {
  auto pending = std::make_shared<PendingCall>();
  EpochWatcher watcher = pending->Watcher();
  watcher.on_done = [pending, done = std::move(watcher.on_done)](
                        const absl::StatusOr<EpochOutcome>& result) { done(result); };
  EpochCall call = CallOf(epoch, request_id.empty() ? EpochCommandName(command) : request_id);
  call.takeover = takeover;
  epochs_->Run(command, call, kTimeout, std::move(watcher));
  return pending;
}

absl::Status TestWorker::Run(EpochCommand command, Epoch epoch) {
  return Start(command, epoch)->Result().status();
}

absl::Status TestWorker::Reach(WorkerState state, Epoch epoch) {
  constexpr std::pair<WorkerState, EpochCommand> kWay[] = {
      {WorkerState::kLoaded, EpochCommand::kLoad},
      {WorkerState::kWarm, EpochCommand::kWarmup},
      {WorkerState::kAgreed, EpochCommand::kCapture},
      {WorkerState::kServing, EpochCommand::kActivate},
      {WorkerState::kDraining, EpochCommand::kDrain}};
  MUSTER_RETURN_IF_ERROR(Assign(epoch, {}));
  if (state == WorkerState::kFailed) {
    epochs_->Abort(kTestReplica, epoch, absl::AbortedError("the test made it fail"));
    return absl::OkStatus();
  }
  for (const auto& [reached, command] : kWay) {
    if (state < reached) break;
    MUSTER_RETURN_IF_ERROR(Run(command, epoch));
  }
  return absl::OkStatus();
}

WorkerState TestWorker::StateOf(Epoch epoch) {
  for (const EpochReport& report : epochs_->Reports()) {
    if (report.epoch == epoch) return report.state;
  }
  return WorkerState::kEnlisted;
}

std::vector<std::string> TestWorker::events() const {
  absl::MutexLock lock(&mu_);
  return events_;
}

void TestWorker::Note(absl::string_view what, Epoch epoch, absl::string_view whom) {
  absl::MutexLock lock(&mu_);
  events_.push_back(absl::StrCat(what, " ", epoch.value(), whom));
}

void TestWorker::AtPhase(const std::string& phase, std::function<void()> act) {
  absl::MutexLock lock(&mu_);
  phase_ = phase;
  at_phase_ = std::move(act);
}

void TestWorker::OnProgress(const Progress& progress) {
  std::function<void()> act;
  {
    absl::MutexLock lock(&mu_);
    if (progress.phase == phase_) act = std::exchange(at_phase_, nullptr);
  }
  if (act != nullptr) act();
}

absl::Status RunOnAll(const std::vector<TestWorker*>& workers, EpochCommand command, Epoch epoch) {
  std::vector<std::shared_ptr<PendingCall>> calls;
  for (TestWorker* worker : workers) calls.push_back(worker->Start(command, epoch));
  absl::Status status;
  for (const auto& call : calls) status.Update(call->Result().status());
  return status;
}

absl::Status Serve(const std::vector<TestWorker*>& workers, Epoch epoch,
                   const ParallelConfig& config) {
  for (TestWorker* worker : workers) MUSTER_RETURN_IF_ERROR(worker->Assign(epoch, config));
  for (const EpochCommand command : {EpochCommand::kLoad, EpochCommand::kWarmup,
                                     EpochCommand::kCapture, EpochCommand::kActivate}) {
    MUSTER_RETURN_IF_ERROR(RunOnAll(workers, command, epoch));
  }
  return absl::OkStatus();
}

TestReplica::TestReplica(int workers, const ModelSource& model,
                         const std::function<void(int rank, EpochContext::Options&)>& adjust) {
  for (int rank = 0; rank < workers; ++rank) {
    workers_.push_back(std::make_unique<TestWorker>(
        rank, board_, model, [](std::unique_ptr<Rendezvous> it) { return it; }, Clock::Real(),
        [&](EpochContext::Options& options) { adjust(rank, options); }));
  }
}

std::vector<TestWorker*> TestReplica::RanksOf(const ParallelConfig& config) const {
  std::vector<TestWorker*> ranks;
  for (int rank = 0; rank < config.world_size(); ++rank) {
    ranks.push_back(workers_[static_cast<size_t>(rank)].get());
  }
  return ranks;
}

absl::Status TestReplica::Serve(const ParallelConfig& config) {
  serving_ = next_ = Epoch(1);
  config_ = config;
  MUSTER_RETURN_IF_ERROR(testing::Serve(RanksOf(config), serving_, config));
  MUSTER_ASSIGN_OR_RETURN(const auto serving, worker(0).epochs().Serving());
  engine_ = serving->shared_engine;
  return absl::OkStatus();
}

absl::Status TestReplica::Prepare(const ParallelConfig& config) {
  next_ = Epoch(next_.value() + 1);
  next_config_ = config;
  const std::vector<TestWorker*> ranks = RanksOf(config);
  const auto prepare = [&]() -> absl::Status {
    for (TestWorker* worker : ranks) {
      MUSTER_RETURN_IF_ERROR(worker->Assign(next_, config, TopologyOf(serving_, config_)));
    }
    MUSTER_RETURN_IF_ERROR(RunOnAll(ranks, EpochCommand::kLoad, next_));
    MUSTER_RETURN_IF_ERROR(RunOnAll(ranks, EpochCommand::kWarmup, next_));
    MUSTER_RETURN_IF_ERROR(RunOnAll(ranks, EpochCommand::kCapture, next_));
    MUSTER_ASSIGN_OR_RETURN(const EpochOutcome captured,
                            worker(0).Start(EpochCommand::kCapture, next_)->Result());
    digest_ = captured.captured.agreement_digest;
    return absl::OkStatus();
  };
  const absl::Status prepared = prepare();
  if (!prepared.ok()) MUSTER_RETURN_IF_ERROR(Release(next_, prepared));
  return prepared;
}

std::shared_ptr<PendingCall> TestReplica::StartTakeOver(const std::vector<SequenceName>& drop) {
  return worker(0).Start(EpochCommand::kActivate, next_, "",
                         {.from = serving_, .agreement_digest = digest_, .drop = drop});
}

absl::StatusOr<Takeover> TestReplica::TakeOver(const std::vector<SequenceName>& drop) {
  const absl::StatusOr<EpochOutcome> outcome = StartTakeOver(drop)->Result();
  if (!outcome.ok()) {
    MUSTER_RETURN_IF_ERROR(Release(next_, outcome.status()));
    return outcome.status();
  }
  serving_ = next_;
  config_ = next_config_;
  return outcome->takeover;
}

absl::StatusOr<Takeover> TestReplica::Resize(const ParallelConfig& config,
                                             const std::vector<SequenceName>& drop) {
  const Epoch before = serving_;
  MUSTER_RETURN_IF_ERROR(Prepare(config));
  MUSTER_ASSIGN_OR_RETURN(const Takeover takeover, TakeOver(drop));
  MUSTER_RETURN_IF_ERROR(Release(before));
  return takeover;
}

absl::Status TestReplica::Release(Epoch epoch, const absl::Status& why) {
  std::vector<std::shared_ptr<PendingCall>> calls;
  for (const auto& worker : workers_) {
    EpochCall call = CallOf(epoch, "release");
    call.why = why;
    calls.push_back(std::make_shared<PendingCall>());
    EpochWatcher watcher = calls.back()->Watcher();
    watcher.on_done = [pending = calls.back(), done = std::move(watcher.on_done)](
                          const absl::StatusOr<EpochOutcome>& result) { done(result); };
    worker->epochs().Run(EpochCommand::kRelease, call, kTimeout, std::move(watcher));
  }
  absl::Status status;
  for (const auto& call : calls) status.Update(call->Result().status());
  return status;
}

std::future<absl::StatusOr<ForwardResult>> StartForward(Engine& engine, const std::string& sequence,
                                                        const std::vector<int>& tokens,
                                                        int position) {
  const auto result = std::make_shared<std::promise<absl::StatusOr<ForwardResult>>>();
  engine.Forward({.client_id = "test",
                  .slices = {{.sequence_id = sequence,
                              .token_ids = {tokens.begin(), tokens.end()},
                              .first_position = static_cast<uint32_t>(position),
                              .sample = true}}},
                 {.done = [result](const ForwardAnswer& it) {
                   result->set_value(it.ok() ? absl::StatusOr<ForwardResult>(**it) : it.status());
                 }});
  return result->get_future();
}

absl::StatusOr<std::vector<int>> Generate(Engine& engine, const Golden& golden, int count) {
  std::vector<int> generated, next = golden.prompt;
  int position = 0;
  while (static_cast<int>(generated.size()) < count) {
    MUSTER_ASSIGN_OR_RETURN(const ForwardResult result,
                            StartForward(engine, "golden", next, position).get());
    position += static_cast<int>(next.size());
    next = {result.outputs.at(0).sampled->token};
    generated.push_back(next[0]);
  }
  return generated;
}

}  // namespace muster::testing
