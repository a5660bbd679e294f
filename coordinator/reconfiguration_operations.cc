// The fleet as operations see and change it.
#include <algorithm>
#include <utility>

#include "coordinator/reconfiguration.h"

namespace muster {

void Reconfiguration::StartOperation(const OperationRequest& request, Operations::OnStarted done) {
  Deliver([&]()
              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { operations_.Start(request, std::move(done)); });
}

void Reconfiguration::PlanChanges(const ParallelConfig& sizes, Operations::OnPlanned done) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { operations_.Plan(sizes, std::move(done)); });
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
  absl::MutexLock lock(&mu_);
  return drained_.contains(worker_id);
}

std::vector<Replica*> Reconfiguration::Replicas() {
  std::vector<Replica*> replicas;
  for (const auto& replica : replicas_) replicas.push_back(replica.get());
  return replicas;
}

std::vector<Candidate> Reconfiguration::Standbys() { return FreeWorkers(membership_.Snapshot()); }

std::optional<Candidate> Reconfiguration::FindMember(const std::string& worker_id) {
  const auto view = membership_.Find(worker_id);
  if (!view.has_value()) return std::nullopt;
  return ToCandidate(view->info);
}

Epoch Reconfiguration::PeekEpoch(ReplicaIndex replica) {
  return Epoch(last_epochs_[static_cast<size_t>(replica.value())].value() + 1);
}

Epoch Reconfiguration::TakeEpoch(ReplicaIndex replica) {
  return last_epochs_[static_cast<size_t>(replica.value())] = PeekEpoch(replica);
}

uint64_t Reconfiguration::ReserveBytes(const ParallelConfig& config) {
  std::vector<Candidate> all;
  for (const WorkerView& member : membership_.Snapshot()) all.push_back(ToCandidate(member.info));
  const absl::StatusOr<ModelSpec> model = CommonModel(all);
  return model.ok() ? LargestStageBytes(config, *model, range_) : 0;
}

void Reconfiguration::SetDrained(const Candidate& worker, bool drained) {
  if (drained) {
    drained_[worker.worker_id] = worker.incarnation;
  } else {
    drained_.erase(worker.worker_id);
  }
}

void Reconfiguration::SetShape(const ReplicaShape& shape) {
  shape_ = shape;
  for (const auto& replica : replicas_) {
    if (replica->status().state != ReplicaState::kServing) replica->set_shape(shape);
  }
}

void Reconfiguration::RunUnlocked(std::function<void()> fn) { unlocked_.push_back(std::move(fn)); }

}  // namespace muster
