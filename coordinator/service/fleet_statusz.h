// What the coordinator's /statusz shows: the fleet as JSON.
#ifndef MUSTER_COORDINATOR_SERVICE_FLEET_STATUSZ_H_
#define MUSTER_COORDINATOR_SERVICE_FLEET_STATUSZ_H_

#include <string>

#include "absl/time/time.h"
#include "base/admin/statusz/statusz.h"
#include "coordinator/fleet.h"

namespace muster {

// The newest events that are shown.
inline constexpr size_t kStatuszEvents = 100;

// {"daemon", "term", "config", "model", "replicas", "workers", "operations", "events"} in one line.
// Names are those of `musterctl --json`; a replica also has "next", the topology that is prepared
// beside the one that serves. Operations and events are newest first.
std::string FleetStatusz(Fleet& fleet, const DaemonFacts& daemon, absl::Time now);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_FLEET_STATUSZ_H_
