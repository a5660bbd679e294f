#include "client/ctl/fleet_snapshot.h"

#include <algorithm>

#include "base/status_macros.h"
#include "base/wire_status.h"

namespace muster::ctl {

absl::StatusOr<FleetSnapshot> TakeSnapshot(const FleetClient& client, uint64_t* next_event) {
  FleetSnapshot snapshot;
  MUSTER_ASSIGN_OR_RETURN(snapshot.topology, client.GetTopology());
  MUSTER_ASSIGN_OR_RETURN(snapshot.workers, client.ListWorkers());
  MUSTER_ASSIGN_OR_RETURN(snapshot.new_events, client.Events(*next_event));
  if (!snapshot.new_events.empty()) *next_event = snapshot.new_events.back().sequence() + 1;
  return snapshot;
}

bool AllServe(const FleetSnapshot& snapshot) {
  const auto& replicas = snapshot.topology.replicas();
  return !replicas.empty() &&
         std::all_of(replicas.begin(), replicas.end(), [](const v1::ReplicaStatus& replica) {
           return replica.state() == v1::REPLICA_STATE_SERVING;
         });
}

absl::Status FirstFailure(const FleetSnapshot& snapshot) {
  for (const auto& replica : snapshot.topology.replicas()) {
    if (replica.state() == v1::REPLICA_STATE_FAILED) return FailureOf(replica.failure());
  }
  return absl::OkStatus();
}

std::string LeaderAddress(const v1::ReplicaStatus& replica) {
  return replica.topology().ranks_size() > 0 ? replica.topology().ranks(0).address() : "";
}

}  // namespace muster::ctl
