#include "coordinator/operations.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"

namespace muster {
namespace {

absl::Status Reused(const std::string& id) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("request id ", QuotedId(id), " has named an operation with other arguments."),
      {.reason = ErrorReason::kRequestIdReused});
}

absl::Status Running(const std::string& id, const std::string& summary) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("operation ", QuotedId(id), " (", summary,
                                ") is running; wait for it, or cancel it."),
                   {.reason = ErrorReason::kOperationRunning, .retriable = true});
}

absl::Status WrongState(const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, message,
                   {.reason = ErrorReason::kWrongState});
}

absl::Duration FormedIn(const ReplicaStatus& status) {
  absl::Duration total;
  for (const PhaseTime& phase : status.phases) total += phase.duration;
  return total;
}

bool Serves(const Replica& replica) { return replica.status().state == ReplicaState::kServing; }

bool HasRank(const Topology& topology, const std::string& worker_id) {
  return std::any_of(topology.ranks.begin(), topology.ranks.end(),
                     [&](const RankPlacement& rank) { return rank.worker_id == worker_id; });
}

// In words, before and after it is planned.
std::string SummaryOf(const OperationRequest& request, const std::vector<ReplicaChange>& changes) {
  if (request.kind == OperationKind::kDrainWorker) {
    const bool shrinks = !changes.empty() && changes[0].from.config != changes[0].to.config;
    return absl::StrCat(
        "drain ", request.worker_id,
        shrinks ? absl::StrCat(", ", DescribeSizes(changes[0].from.config, changes[0].to.config))
                : "");
  }
  if (!changes.empty()) return DescribeSizes(changes[0].from.config, changes[0].to.config);
  std::vector<std::string> sizes;
  if (request.sizes.tp != 0) sizes.push_back(absl::StrCat("tp ", request.sizes.tp));
  if (request.sizes.cp != 0) sizes.push_back(absl::StrCat("cp ", request.sizes.cp));
  return sizes.empty() ? "the same sizes" : absl::StrJoin(sizes, ", ");
}

std::vector<SequenceName> NamesOf(const std::vector<std::string>& drop) {
  std::vector<SequenceName> names;
  for (const std::string& name : drop) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos) {
      names.push_back({name, name});
    } else {
      names.push_back({name.substr(0, slash), name.substr(slash + 1)});
    }
  }
  return names;
}

absl::Status CheckLost(const OperationRequest& request, const ReplicaChange& change) {
  const auto& drop = request.drop;
  const auto dropped = [&](const std::string& name) {
    return std::find(drop.begin(), drop.end(), name) != drop.end();
  };
  if (change.lost_count == 0 || dropped("*")) return absl::OkStatus();
  std::vector<std::string> kept;
  for (const SequenceName& name : change.lost_sequences) {
    const std::string text = absl::StrCat(name.client_id, "/", name.sequence_id);
    if (!dropped(text)) kept.push_back(QuotedId(text));
  }
  const bool all_named = static_cast<size_t>(change.lost_count) == change.lost_sequences.size();
  if (kept.empty() && all_named) return absl::OkStatus();
  if (kept.size() > 8) kept.resize(8);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("cannot plan ", DescribeSizes(change.from.config, change.to.config),
                                ": ", Counted(static_cast<uint64_t>(change.lost_count), "sequence"),
                                " can be neither moved nor computed again",
                                kept.empty() ? "" : ": ", absl::StrJoin(kept, ", "),
                                ". Free them, or name them, or * for all, as ones to drop."),
                   {.reason = ErrorReason::kPlanRefused});
}

}  // namespace

ParallelConfig WithSizes(const ParallelConfig& current, const ParallelConfig& sizes) {
  const auto pick = [](int wanted, int now) { return wanted == 0 ? now : wanted; };
  return {.tp = pick(sizes.tp, current.tp),
          .cp = pick(sizes.cp, current.cp),
          .pp = pick(sizes.pp, current.pp),
          .replicas = pick(sizes.replicas, current.replicas)};
}

void Operations::Start(const OperationRequest& request, OnStarted done) {
  const auto answer = [&](const absl::Status& status) {
    host_.RunUnlocked([done, status] { done(status); });
  };
  if (const Record* known = FindRecord(request.id); known != nullptr) {
    return answer(known->request == request ? absl::OkStatus() : Reused(request.id));
  }
  if (planning_.has_value() && planning_->request.id == request.id) {
    if (planning_->request != request) return answer(Reused(request.id));
    planning_->done.push_back(std::move(done));
    return;
  }
  absl::Status free = CheckFree(request);
  if (free.ok() && request.kind == OperationKind::kDrainWorker)
    free = CheckDrain(request.worker_id);
  if (!free.ok()) return answer(free);
  const std::vector<Topology> serving = ServingTopologies(request.worker_id);
  if (!serving.empty()) return StartPlanning(request, std::move(done));
  if (request.kind == OperationKind::kDrainWorker) return DrainStandby(request, std::move(done));
  answer(WrongState("no replica serves: there is nothing to change while it serves."));
}

absl::Status Operations::CheckFree(const OperationRequest& /*request*/) const {
  if (running_.has_value()) {
    return Running(running_->operation.id, running_->operation.summary);
  }
  if (planning_.has_value())
    return Running(planning_->request.id, SummaryOf(planning_->request, {}));
  return absl::OkStatus();
}

absl::Status Operations::CheckDrain(const std::string& worker_id) {
  if (!host_.FindMember(worker_id).has_value()) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("no worker named ", QuotedId(worker_id), " is enlisted."),
                     {.reason = ErrorReason::kInvalidRequest});
  }
  for (const Replica* replica : host_.Replicas()) {
    if (!replica->Occupies(worker_id)) continue;
    if (!Serves(*replica)) {
      return WrongState(absl::StrCat("worker ", worker_id, " cannot be drained while replica ",
                                     replica->status().replica.value(),
                                     " does not serve. Wait until it does."));
    }
    const Topology& topology = *replica->status().topology;
    if (topology.ranks.front().worker_id != worker_id) continue;
    if (topology.ranks.size() == 1 && host_.Standbys().empty()) {
      return WrongState(absl::StrCat("worker ", worker_id, " is the only worker of replica ",
                                     topology.replica.value(),
                                     " and cannot be drained. Stop the fleet instead."));
    }
    return WrongState(absl::StrCat("worker ", worker_id, " leads replica ",
                                   topology.replica.value(),
                                   " and cannot be drained while it serves. Stop its process: "
                                   "the replica is then formed again without it."));
  }
  return absl::OkStatus();
}

void Operations::StartPlanning(const OperationRequest& request, OnStarted done) {
  planning_ = {.request = request, .done = {std::move(done)}};
  SurveyCaches(ServingTopologies(request.worker_id), options_.term, ports_,
               [this, id = request.id](absl::StatusOr<CacheSummaries> caches) {
                 FinishPlanning(id, std::move(caches));
               });
}

void Operations::FinishPlanning(const std::string& id, absl::StatusOr<CacheSummaries> caches) {
  if (!planning_.has_value() || planning_->request.id != id) return;
  const Planning planning = *std::exchange(planning_, std::nullopt);
  const absl::Status begun = caches.ok() ? Begin(planning.request, *caches) : caches.status();
  host_.RunUnlocked([done = planning.done, begun] {
    for (const OnStarted& it : done) it(begun);
  });
}

absl::Status Operations::Begin(const OperationRequest& request, const CacheSummaries& caches) {
  const Target target{request.sizes, request.buckets, request.worker_id};
  MUSTER_ASSIGN_OR_RETURN(const std::vector<ReplicaChange> changes, PlanAll(target, caches));
  for (const ReplicaChange& change : changes) MUSTER_RETURN_IF_ERROR(CheckLost(request, change));
  Record record{.request = request,
                .operation = {.id = request.id,
                              .kind = request.kind,
                              .summary = SummaryOf(request, changes),
                              .started = ports_.clock.Now()}};
  steps_.clear();
  step_ = 0;
  for (const ReplicaChange& change : changes) {
    Replica* replica = host_.Replicas()[static_cast<size_t>(change.to.replica.value())];
    const auto& buckets = request.buckets.empty() ? replica->shape().buckets : request.buckets;
    steps_.push_back({.replica = replica,
                      .shape = {.config = change.to.config, .buckets = buckets},
                      .cache = caches.at(change.to.replica)});
    record.operation.replicas.push_back({.replica = change.to.replica,
                                         .from_epoch = change.from.epoch,
                                         .from = change.from.config,
                                         .to = change.to.config});
  }
  record.operation.no_change = changes.empty();
  running_ = std::move(record);
  ++version_;
  Emit(EventKind::kOperationStarted, running_->operation, running_->operation.summary);
  if (changes.empty()) EndOperation(OperationState::kDone, absl::OkStatus());
  return absl::OkStatus();
}

void Operations::DrainStandby(const OperationRequest& request, OnStarted done) {
  host_.SetDrained(*host_.FindMember(request.worker_id), true);
  running_ = {.request = request,
              .operation = {.id = request.id,
                            .kind = request.kind,
                            .summary = SummaryOf(request, {}),
                            .started = ports_.clock.Now()}};
  Emit(EventKind::kOperationStarted, running_->operation, running_->operation.summary);
  EndOperation(OperationState::kDone, absl::OkStatus());
  host_.RunUnlocked([done = std::move(done)] { done(absl::OkStatus()); });
}

std::vector<Topology> Operations::ServingTopologies(const std::string& drained) const {
  std::vector<Topology> topologies;
  for (const Replica* replica : host_.Replicas()) {
    if (!Serves(*replica)) continue;
    const Topology& topology = *replica->status().topology;
    if (drained.empty() || HasRank(topology, drained)) topologies.push_back(topology);
  }
  return topologies;
}

absl::StatusOr<ReplicaChange> Operations::PlanReplica(Replica& replica, const Target& target,
                                                      const CacheSummary& cache, Epoch epoch,
                                                      std::vector<Candidate>& pool) const {
  const ReplicaStatus& status = replica.status();
  ChangeRequest request{.current = *status.topology,
                        .config = WithSizes(status.topology->config, target.sizes),
                        .epoch = epoch,
                        .term = options_.term,
                        .inventory = pool,
                        .cache = cache,
                        .ledgers = status.ledgers,
                        .formed_in = FormedIn(status),
                        .range = options_.range};
  for (const RankPlacement& rank : status.topology->ranks) {
    const auto member = host_.FindMember(rank.worker_id);
    if (member.has_value()) request.inventory.push_back(*member);
  }
  if (!target.drained.empty()) request.excluded.insert(target.drained);
  auto change = PlanChange(request);
  // A rank that nobody can take over is given up.
  while (!change.ok() && !target.drained.empty() && request.config.cp > 1 &&
         DetailOf(change.status()).reason != ErrorReason::kWrongState) {
    --request.config.cp;
    auto smaller = PlanChange(request);
    if (smaller.ok()) change = std::move(smaller);
  }
  if (!change.ok()) return change;
  std::erase_if(pool, [&](const Candidate& w) { return HasRank(change->to, w.worker_id); });
  for (const Candidate& worker : request.inventory) {
    const bool freed = HasRank(change->from, worker.worker_id) &&
                       !HasRank(change->to, worker.worker_id) &&
                       !request.excluded.contains(worker.worker_id);
    if (freed) pool.push_back(worker);
  }
  return change;
}

absl::StatusOr<std::vector<ReplicaChange>> Operations::PlanAll(const Target& target,
                                                               const CacheSummaries& caches) const {
  std::vector<ReplicaChange> changes;
  std::vector<Candidate> pool = host_.Standbys();
  for (Replica* replica : host_.Replicas()) {
    const auto cache = caches.find(replica->status().replica);
    if (cache == caches.end() || !Serves(*replica)) continue;
    const ParallelConfig& current = replica->status().topology->config;
    const bool same_graphs = target.buckets.empty() || target.buckets == replica->shape().buckets;
    if (target.drained.empty() && same_graphs && WithSizes(current, target.sizes) == current)
      continue;
    MUSTER_ASSIGN_OR_RETURN(ReplicaChange change,
                            PlanReplica(*replica, target, cache->second,
                                        host_.PeekEpoch(replica->status().replica), pool));
    changes.push_back(std::move(change));
  }
  return changes;
}

void Operations::Plan(const ParallelConfig& sizes, OnPlanned done) {
  SurveyCaches(ServingTopologies(""), options_.term, ports_,
               [this, sizes, done = std::move(done)](absl::StatusOr<CacheSummaries> caches) {
                 auto plan = caches.ok()
                                 ? PlanAll({.sizes = sizes}, *caches)
                                 : absl::StatusOr<std::vector<ReplicaChange>>(caches.status());
                 host_.RunUnlocked([done, plan = std::move(plan)] { done(plan); });
               });
}

absl::StatusOr<Operation> Operations::Cancel(const std::string& id) {
  const absl::Status reason =
      MakeError(absl::StatusCode::kCancelled,
                absl::StrCat("operation ", QuotedId(id), " was cancelled before it took effect."),
                {.reason = ErrorReason::kOperationCancelled});
  if (running_.has_value() && running_->operation.id == id) {
    const Step& step = steps_[step_];
    if (step.started && !HasEnded(step.replica->resize().stage)) {
      MUSTER_RETURN_IF_ERROR(step.replica->CancelResize(reason));
    }
    Advance();
  } else if (planning_.has_value() && planning_->request.id == id) {
    return WrongState(absl::StrCat("operation ", QuotedId(id), " is being planned. Try again."));
  }
  std::optional<Operation> operation = Find(id);
  if (operation.has_value()) return *std::move(operation);
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("there is no operation ", QuotedId(id), "."),
                   {.reason = ErrorReason::kInvalidRequest});
}

const Operations::Record* Operations::FindRecord(const std::string& id) const {
  if (running_.has_value() && running_->operation.id == id) return &*running_;
  for (const Record& record : ended_) {
    if (record.operation.id == id) return &record;
  }
  return nullptr;
}

std::vector<Operation> Operations::List() const {
  std::vector<Operation> operations;
  if (running_.has_value()) operations.push_back(*Find(running_->operation.id));
  for (auto record = ended_.rbegin(); record != ended_.rend(); ++record) {
    operations.push_back(record->operation);
  }
  return operations;
}

std::optional<Operation> Operations::Find(const std::string& id) const {
  const Record* record = FindRecord(id);
  if (record == nullptr) return std::nullopt;
  Operation operation = record->operation;
  const bool is_running = running_.has_value() && record == &*running_;
  if (is_running && step_ < steps_.size() && steps_[step_].started) {
    operation.replicas[step_] = steps_[step_].replica->resize();
  }
  return operation;
}

void Operations::Advance() {
  while (running_.has_value()) {
    Step& step = steps_[step_];
    ReplicaResize& resize = running_->operation.replicas[step_];
    if (!step.started) {
      if (absl::Status started = StartStep(step, resize); !started.ok()) {
        return EndOperation(OperationState::kRolledBack, started);
      }
    }
    const ResizeStage before = resize.stage;
    resize = step.replica->resize();
    if (resize.stage != before) ++version_;
    if (!HasEnded(resize.stage) || step.replica->Resizing()) return;
    if (resize.stage == ResizeStage::kRolledBack) {
      return EndOperation(OperationState::kRolledBack, resize.failure);
    }
    if (resize.stage == ResizeStage::kFailed) {
      return EndOperation(OperationState::kFailed, resize.failure);
    }
    if (++step_ == steps_.size()) return EndOperation(OperationState::kDone, absl::OkStatus());
  }
}

absl::Status Operations::StartStep(Step& step, ReplicaResize& resize) {
  const OperationRequest& request = running_->request;
  const auto plan = [&]() -> absl::StatusOr<ReplicaChange> {
    if (!Serves(*step.replica)) {
      return WrongState(
          absl::StrCat("replica ", resize.replica.value(), " does not serve any more."));
    }
    std::vector<Candidate> pool = host_.Standbys();
    return PlanReplica(*step.replica, {step.shape.config, {}, request.worker_id}, step.cache,
                       host_.TakeEpoch(resize.replica), pool);
  }();
  if (!plan.ok()) {
    resize.stage = ResizeStage::kRolledBack;
    resize.failure = plan.status();
    return plan.status();
  }
  step.started = true;
  step.replica->Resize({.plan = {.topology = plan->to,
                                 .predecessor = plan->from,
                                 .buckets = step.shape.buckets,
                                 .reserve_bytes = host_.ReserveBytes(plan->to.config),
                                 .drop = NamesOf(request.drop)},
                        .operation_id = request.id,
                        .timeout = request.timeout});
  return absl::OkStatus();
}

void Operations::EndOperation(OperationState state, const absl::Status& failure) {
  Operation& operation = running_->operation;
  operation.state = state;
  operation.failure = failure;
  operation.ended = ports_.clock.Now();
  if (state == OperationState::kDone && !steps_.empty()) {
    if (running_->request.kind != OperationKind::kDrainWorker) {
      host_.SetShape(steps_.front().shape);
    } else if (const auto worker = host_.FindMember(running_->request.worker_id)) {
      host_.SetDrained(*worker, true);
    }
  }
  Emit(EventKind::kOperationEnded, operation,
       state == OperationState::kDone
           ? absl::StrCat(operation.summary, operation.no_change ? ": nothing to change" : ": done")
           : absl::StrCat(operation.summary,
                          state == OperationState::kFailed ? " failed: " : " was rolled back: ",
                          failure.message()));
  steps_.clear();
  step_ = 0;
  ++version_;
  Keep(*std::exchange(running_, std::nullopt));
}

void Operations::Keep(Record record) {
  ended_.push_back(std::move(record));
  if (ended_.size() > kKept) ended_.pop_front();
}

void Operations::Emit(EventKind kind, const Operation& operation, const std::string& message) {
  ports_.events.Append({.kind = kind, .message = message, .operation_id = operation.id});
}

}  // namespace muster
