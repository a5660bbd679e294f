// The fleet as operations see and change it.
#include <algorithm>
#include <utility>

#include "coordinator/reconfiguration.h"

namespace muster {

void Reconfiguration::StartOperation(const OperationRequest& request, Operations::OnStarted done) {
  Deliver([&]()
              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { operations_.Start(request, std::move(done)); });
}

void Reconfiguration::PlanChanges(const OperationRequest& request, Operations::OnPlanned done) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { operations_.Plan(request, std::move(done)); });
}

absl::StatusOr<Operation> Reconfiguration::CancelOperation(const std::string& id) {
  absl::StatusOr<Operation> cancelled;
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { cancelled = operations_.Cancel(id); });
  return cancelled;
}

std::vector<Operation> Reconfiguration::ListOperations() const {
  absl::MutexLock lock(&mu_);
  return operations_.List();
}

std::optional<Operation> Reconfiguration::FindOperation(const std::string& id) const {
  absl::MutexLock lock(&mu_);
  return operations_.Find(id);
}

bool Reconfiguration::IsDrained(const std::string& worker_id) const {
  const auto view = membership_.Find(worker_id);
  absl::MutexLock lock(&mu_);
  return view.has_value() && IsDrained(view->info);
}

std::optional<Pattern> Reconfiguration::Pattern() {
  const std::vector<WorkerView> members = membership_.Snapshot();
  absl::MutexLock lock(&mu_);
  return WantedPattern(members);
}

bool Reconfiguration::IsDrained(const WorkerInfo& worker) const {
  const auto found = drained_.find(worker.worker_id);
  return found != drained_.end() && found->second == worker.incarnation;
}

std::vector<Candidate> Reconfiguration::Standbys() { return FreeWorkers(membership_.Snapshot()); }

std::optional<Candidate> Reconfiguration::FindMember(const std::string& worker_id) {
  const auto view = membership_.Find(worker_id);
  if (!view.has_value()) return std::nullopt;
  Candidate member = ToCandidate(view->info);
  member.drained = IsDrained(view->info);
  return member;
}

Epoch Reconfiguration::PeekEpoch(ReplicaIndex replica) {
  return Epoch(slots_[static_cast<size_t>(replica.value())].last.value() + 1);
}

Epoch Reconfiguration::TakeEpoch(ReplicaIndex replica) {
  Slot& slot = slots_[static_cast<size_t>(replica.value())];
  return slot.own = slot.last = PeekEpoch(replica);
}

uint64_t Reconfiguration::ReserveBytes(const ParallelConfig& config) {
  const absl::StatusOr<ModelSpec> model = WantedModel(membership_.Snapshot());
  return model.ok() ? ResizeReserveBytes(config, *model, range_) : 0;
}

void Reconfiguration::SetDrained(const Candidate& worker) {
  drained_[worker.worker_id] = worker.incarnation;
}

void Reconfiguration::SetShape(const ReplicaShape& shape) {
  const int count = shape_.config.replicas;
  shape_ = shape;
  shape_.config.replicas = count;
  for (Replica* replica : Replicas()) {
    const ReplicaState state = replica->status().state;
    // What forms has the shape that it was planned in.
    if (state == ReplicaState::kWaiting || state == ReplicaState::kFailed)
      replica->set_shape(shape_);
  }
}

void Reconfiguration::RunUnlocked(std::function<void()> fn) { unlocked_.push_back(std::move(fn)); }

}  // namespace muster
