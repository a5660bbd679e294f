#include "client/ctl/fleet_snapshot.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/wire_json.h"
#include "base/wire_status.h"
#include "client/ctl/text.h"

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

WorkerAddress LeaderOf(const v1::ReplicaStatus& replica, const FleetTls& tls) {
  if (replica.topology().ranks_size() == 0) return {"", "", tls};
  const v1::RankPlacement& leader = replica.topology().ranks(0);
  return {leader.address(), leader.worker_id(), tls};
}

absl::StatusOr<v1::ReplicaStatus> FindServing(const FleetClient& client,
                                              std::optional<uint32_t> replica) {
  MUSTER_ASSIGN_OR_RETURN(const auto topology, client.GetTopology());
  const v1::ReplicaStatus* found = nullptr;
  std::vector<uint32_t> numbers;
  for (const auto& status : topology.replicas()) {
    numbers.push_back(status.replica());
    const bool serves = status.state() == v1::REPLICA_STATE_SERVING;
    if (replica.has_value() ? status.replica() == *replica : found == nullptr) found = &status;
    if (serves && (found == &status || !replica.has_value())) return status;
  }
  if (found == nullptr) {
    return absl::NotFoundError(absl::StrCat("there is no replica ", replica.value_or(0),
                                            ": the fleet has ", absl::StrJoin(numbers, ", ")));
  }
  return absl::UnavailableError(
      absl::StrCat("replica ", found->replica(), " is ", StateName(found->state()),
                   " and does not serve",
                   found->has_failure() ? absl::StrCat(": ", found->failure().message()) : ""));
}

}  // namespace muster::ctl
