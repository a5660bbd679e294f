// What the coordinator's /metrics shows of the fleet.
#ifndef MUSTER_COORDINATOR_SERVICE_FLEET_METRICS_H_
#define MUSTER_COORDINATOR_SERVICE_FLEET_METRICS_H_

#include "absl/time/time.h"
#include "base/metrics/metrics_text.h"
#include "coordinator/coordinator.h"

namespace muster {

// docs/metrics.md has every name. `lease` is the longest silence of a worker.
void AddFleetMetrics(Coordinator& coordinator, absl::Duration lease, MetricsText& text);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_FLEET_METRICS_H_
