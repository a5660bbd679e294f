#include "coordinator/fleet.h"

#include <algorithm>
#include <map>
#include <utility>

namespace muster {
namespace {

bool HoldsRanks(const ReplicaStatus& replica) {
  return replica.state == ReplicaState::kForming || replica.state == ReplicaState::kServing;
}

// Before the first heartbeat that tells of the epoch, the worker is ASSIGNED at most.
void FillReport(const WorkerView& view, WorkerStatus* status) {
  status->state = WorkerState::kAssigned;
  for (const EpochReport& report : view.epochs) {
    if (report.replica != *status->replica || report.epoch != status->epoch) continue;
    status->state = report.state;
    status->report = report;
  }
}

// `serves`: the epoch does, though the worker may not have said so yet.
void FillRank(const WorkerView& view, const Topology& topology, bool serves, WorkerStatus* status) {
  for (const RankPlacement& rank : topology.ranks) {
    if (rank.worker_id != view.info.worker_id || rank.incarnation != view.info.incarnation) {
      continue;
    }
    status->replica = topology.replica;
    status->rank = rank.rank;
    status->epoch = topology.epoch;
    FillReport(view, status);
    if (serves) status->state = std::max(status->state, WorkerState::kServing);
  }
}

// Its rank in the epoch that serves, or else in the one that is prepared beside it.
WorkerStatus StatusOf(const WorkerView& view, const std::vector<ReplicaStatus>& replicas) {
  WorkerStatus status{.info = view.info};
  for (const ReplicaStatus& replica : replicas) {
    if (!HoldsRanks(replica)) continue;
    if (replica.next.has_value()) FillRank(view, *replica.next, /*serves=*/false, &status);
    FillRank(view, *replica.topology, replica.state == ReplicaState::kServing, &status);
  }
  return status;
}

}  // namespace

FleetTopology Fleet::GetTopology() const {
  return {.replicas = reconfiguration_.Snapshot(),
          .term = reconfiguration_.term(),
          .config = reconfiguration_.config()};
}

bool Fleet::Serves() const {
  const std::vector<ReplicaStatus> replicas = reconfiguration_.Snapshot();
  return std::any_of(replicas.begin(), replicas.end(), [](const ReplicaStatus& replica) {
    return replica.state == ReplicaState::kServing;
  });
}

std::vector<WorkerStatus> Fleet::ListWorkers() const {
  const std::vector<ReplicaStatus> replicas = reconfiguration_.Snapshot();
  const absl::Time now = clock_.Now();
  std::vector<WorkerStatus> workers;
  for (const WorkerView& view : membership_.Snapshot()) {
    workers.push_back(StatusOf(view, replicas));
    workers.back().drained = reconfiguration_.IsDrained(view.info.worker_id);
    workers.back().heartbeat_age = std::max(absl::ZeroDuration(), now - view.last_heartbeat);
  }
  std::sort(workers.begin(), workers.end(), [](const WorkerStatus& a, const WorkerStatus& b) {
    return NaturalLess(a.info.worker_id, b.info.worker_id);
  });
  return workers;
}

absl::StatusOr<Plan> Fleet::PlanTopology(const ParallelConfig& sizes) const {
  const ParallelConfig config = WithSizes(reconfiguration_.config(), sizes);
  PlanRequest request{.config = config,
                      .term = reconfiguration_.term(),
                      .pattern = reconfiguration_.Pattern(),
                      .one_per_domain = reconfiguration_.options().replica_per_domain};
  for (const WorkerView& view : membership_.Snapshot()) {
    request.inventory.push_back(ToCandidate(view.info));
    request.inventory.back().drained = reconfiguration_.IsDrained(view.info.worker_id);
  }
  std::map<ReplicaIndex, std::optional<Topology>> replicas;
  for (ReplicaStatus& it : reconfiguration_.Snapshot()) {
    if (static_cast<int>(replicas.size()) == config.replicas) break;
    replicas[it.replica] = std::move(it.topology);
  }
  for (int i = 0; static_cast<int>(replicas.size()) < config.replicas; ++i) {
    replicas.try_emplace(ReplicaIndex(i));
  }
  for (auto& [replica, previous] : replicas) {
    request.slots.push_back({.replica = replica,
                             .epoch = reconfiguration_.NextEpoch(replica),
                             .previous = std::move(previous)});
  }
  return muster::PlanTopology(request);
}

}  // namespace muster
