// The coordinator's own values as messages of muster.v1; those of base/topology.h are in
// base/wire_topology.h.
#ifndef MUSTER_COORDINATOR_SERVICE_FLEET_MESSAGES_H_
#define MUSTER_COORDINATOR_SERVICE_FLEET_MESSAGES_H_

#include "base/wire_topology.h"
#include "coordinator/events.h"
#include "coordinator/fleet.h"
#include "coordinator/placement.h"
#include "coordinator/replica.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster {

v1::ReplicaStatus ToWire(const ReplicaStatus& replica);
v1::WorkerStatus ToWire(const WorkerStatus& worker);
v1::PlanTopologyResponse ToWire(const Plan& plan);
v1::WatchEventsResponse ToWire(const Event& event);

// Fills a GetTopologyResponse or a WatchTopologyResponse.
template <typename Response>
void FillTopology(const FleetTopology& topology, Response* response) {
  for (const ReplicaStatus& replica : topology.replicas) {
    *response->add_replicas() = ToWire(replica);
  }
  response->set_term(topology.term.value());
  *response->mutable_config() = ToWire(topology.config);
}

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_FLEET_MESSAGES_H_
