// What a fleet says of itself at one moment.
#ifndef MUSTER_CLIENT_CTL_FLEET_SNAPSHOT_H_
#define MUSTER_CLIENT_CTL_FLEET_SNAPSHOT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/ctl/fleet_client.h"

namespace muster::ctl {

struct FleetSnapshot {
  v1::GetTopologyResponse topology;
  v1::ListWorkersResponse workers;
  // Those since the snapshot before.
  std::vector<v1::WatchEventsResponse> new_events;
};

// Takes a snapshot; `next_event` is the first sequence number wanted, and is moved on.
// Errors: as of FleetClient.
absl::StatusOr<FleetSnapshot> TakeSnapshot(const FleetClient& client, uint64_t* next_event);

// True when there are replicas, and all of them serve.
bool AllServe(const FleetSnapshot& snapshot);

// Why the first replica that failed did; OK when none has.
absl::Status FirstFailure(const FleetSnapshot& snapshot);

// The address of a replica's leader; empty while it has no topology.
std::string LeaderAddress(const v1::ReplicaStatus& replica);
// The leader as it is called, by a fleet's TLS.
WorkerAddress LeaderOf(const v1::ReplicaStatus& replica, const FleetTls& tls);

// A replica that serves, by its index, or the first that does. Errors: NOT_FOUND (says which there
// are), UNAVAILABLE (it does not serve, and why), and as of FleetClient.
absl::StatusOr<v1::ReplicaStatus> FindServing(const FleetClient& client,
                                              std::optional<uint32_t> replica);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FLEET_SNAPSHOT_H_
