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

// In words, before and after it is planned.
std::string SummaryOf(const OperationRequest& request, const std::vector<ReplicaChange>& changes) {
  if (request.kind == OperationKind::kDrainWorker) {
    const bool shrinks = !changes.empty() && changes[0].from.config != changes[0].to.config;
    return absl::StrCat(
        "drain ", request.worker_id,
        shrinks ? absl::StrCat(", ", DescribeSizes(changes[0].from.config, changes[0].to.config))
                : "");
  }
  if (!changes.empty()) {
    const ReplicaChange& change = changes.front();
    return DescribeChange(change.from.config, change.to.config, change.note);
  }
  std::vector<std::string> parts;
  if (request.sizes.tp != 0) parts.push_back(absl::StrCat("tp ", request.sizes.tp));
  if (request.sizes.cp != 0) parts.push_back(absl::StrCat("cp ", request.sizes.cp));
  if (request.sizes.replicas != 0) {
    parts.push_back(absl::StrCat("replicas ", request.sizes.replicas));
  }
  if (!request.buckets.empty()) {
    parts.push_back(absl::StrCat("buckets ", absl::StrJoin(request.buckets, " ")));
  }
  return parts.empty() ? "the same sizes" : absl::StrJoin(parts, ", ");
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
  absl::Status free = CheckFree();
  if (free.ok() && request.kind == OperationKind::kDrainWorker)
    free = CheckDrain(request.worker_id);
  if (!free.ok()) return answer(free);
  const std::vector<Topology> serving = ServingTopologies(request.worker_id);
  if (!serving.empty()) return StartPlanning(request, std::move(done));
  if (request.kind == OperationKind::kDrainWorker) return DrainStandby(request, std::move(done));
  answer(WrongState("no replica serves: there is nothing to change while it serves."));
}

absl::Status Operations::WrongState(const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, message,
                   {.reason = ErrorReason::kWrongState});
}

absl::Status Operations::CheckFree() const {
  if (running_.has_value()) {
    return Running(running_->operation.id, running_->operation.summary);
  }
  if (planning_.has_value())
    return Running(planning_->request.id, SummaryOf(planning_->request, {}));
  return absl::OkStatus();
}

void Operations::StartPlanning(const OperationRequest& request, OnStarted done) {
  planning_ = {.request = request, .done = {std::move(done)}};
  SurveyCaches(ServingTopologies(request.worker_id), ports_,
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
  MUSTER_ASSIGN_OR_RETURN(const std::vector<ReplicaChange> changes, PlanOperation(request, caches));
  const int now = static_cast<int>(host_.Replicas().size());
  const int wanted = WantedReplicas(request);
  Record record{.request = request,
                .operation = {.id = request.id,
                              .kind = request.kind,
                              .summary = SummaryOf(request, changes),
                              .started = ports_.clock.Now()}};
  if (wanted != now) {
    count_ = {.from = now, .to = wanted};
    const std::string replicas = absl::StrCat("replicas ", now, " to ", wanted);
    std::string& summary = record.operation.summary;
    summary = changes.empty() ? replicas : absl::StrCat(summary, ", ", replicas);
  }
  for (const ReplicaChange& change : changes) AddStep(change, caches, &record);
  record.operation.no_change = changes.empty() && wanted == now;
  running_ = std::move(record);
  ++version_;
  Emit(EventKind::kOperationStarted, running_->operation, running_->operation.summary);
  return absl::OkStatus();
}

void Operations::AddStep(const ReplicaChange& change, const CacheSummaries& caches,
                         Record* record) {
  const std::vector<Replica*> replicas = host_.Replicas();
  Replica* replica = *std::find_if(replicas.begin(), replicas.end(), [&](const Replica* it) {
    return it->status().replica == change.to.replica;
  });
  const std::vector<int>& buckets = record->request.buckets;
  steps_.push_back({.replica = replica,
                    .shape = {.config = change.to.config,
                              .buckets = buckets.empty() ? replica->shape().buckets : buckets},
                    .cache = caches.at(change.to.replica)});
  record->operation.replicas.push_back({.replica = change.to.replica,
                                        .from_epoch = change.from.epoch,
                                        .from = change.from.config,
                                        .to = change.to.config,
                                        .note = change.note});
}

void Operations::DrainStandby(const OperationRequest& request, OnStarted done) {
  host_.SetDrained(*host_.FindMember(request.worker_id));
  running_ = {.request = request,
              .operation = {.id = request.id,
                            .kind = request.kind,
                            .summary = SummaryOf(request, {}),
                            .started = ports_.clock.Now()}};
  Emit(EventKind::kOperationStarted, running_->operation, running_->operation.summary);
  EndOperation(OperationState::kDone, absl::OkStatus());
  host_.RunUnlocked([done = std::move(done)] { done(absl::OkStatus()); });
}

absl::Status Operations::CancelRunning(const absl::Status& reason) {
  if (step_ == steps_.size()) {
    if (count_->to > count_->from) {
      UndoCount(reason);
      return absl::OkStatus();
    }
    return WrongState("replicas are being taken out of the fleet; that cannot be cancelled.");
  }
  Step& step = steps_[step_];
  if (step.started && !HasEnded(step.replica->resize().stage)) {
    const absl::Status cancelled = step.replica->CancelResize(reason);
    const bool more = step_ + 1 < steps_.size() || count_.has_value();
    if (!cancelled.ok() && !more) return cancelled;
    if (!cancelled.ok()) stop_ = reason;
  }
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<Operation> Operations::Cancel(const std::string& id) {
  const absl::Status reason =
      MakeError(absl::StatusCode::kCancelled,
                absl::StrCat("operation ", QuotedId(id), " was cancelled before it took effect."),
                {.reason = ErrorReason::kOperationCancelled});
  if (running_.has_value() && running_->operation.id == id) {
    MUSTER_RETURN_IF_ERROR(CancelRunning(reason));
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
    if (step_ == steps_.size()) return AdvanceCount();
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
    ++step_;
    if (!stop_.ok()) return EndOperation(OperationState::kRolledBack, stop_);
  }
}

void Operations::AdvanceCount() {
  if (!count_.has_value()) return EndOperation(OperationState::kDone, absl::OkStatus());
  CountChange& count = *count_;
  if (!std::exchange(count.begun, true)) {
    host_.SetShape(ShapeFor(running_->request));
    host_.SetReplicas(count.to);
    count.deadline = ports_.clock.Now() + running_->request.timeout;
  }
  if (host_.Closing()) return;
  bool all_serve = true;
  const std::vector<Replica*> replicas = host_.Replicas();
  for (size_t i = static_cast<size_t>(count.from); i < replicas.size(); ++i) {
    const ReplicaStatus& status = replicas[i]->status();
    if (status.state == ReplicaState::kFailed) return UndoCount(status.failure);
    all_serve = all_serve && status.state == ReplicaState::kServing;
  }
  if (all_serve) return EndOperation(OperationState::kDone, absl::OkStatus());
  if (ports_.clock.Now() < count.deadline) return;
  UndoCount(MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("the new replicas did not serve within ", InUnits(running_->request.timeout)),
      {.reason = ErrorReason::kRankMissing}));
}

// New replicas that do not come to serve are taken out again.
void Operations::UndoCount(const absl::Status& reason) {
  const absl::Status failure = reason;
  host_.SetReplicas(count_->from);
  EndOperation(OperationState::kRolledBack, failure);
}

absl::Status Operations::StartStep(Step& step, ReplicaResize& resize) {
  const OperationRequest& request = running_->request;
  const auto plan = [&]() -> absl::StatusOr<ReplicaChange> {
    if (!Serves(*step.replica)) {
      return WrongState(
          absl::StrCat("replica ", resize.replica.value(), " does not serve any more."));
    }
    std::vector<Candidate> pool = host_.Standbys();
    return PlanReplica(*step.replica, {step.shape.config, step.shape.buckets, request.worker_id},
                       step.cache, host_.TakeEpoch(resize.replica), pool);
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
                        .timeout = request.timeout,
                        .note = plan->note});
  return absl::OkStatus();
}

void Operations::EndOperation(OperationState state, const absl::Status& failure) {
  Operation& operation = running_->operation;
  operation.state = state;
  operation.failure = failure;
  operation.ended = ports_.clock.Now();
  const bool drains = running_->request.kind == OperationKind::kDrainWorker;
  if (state == OperationState::kDone && !drains) {
    host_.SetShape(ShapeFor(running_->request));
  } else if (state == OperationState::kDone && !steps_.empty()) {
    if (const auto worker = host_.FindMember(running_->request.worker_id)) {
      host_.SetDrained(*worker);
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
  count_.reset();
  stop_ = absl::OkStatus();
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
