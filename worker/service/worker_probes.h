// What probes ask of a worker.
#ifndef MUSTER_WORKER_SERVICE_WORKER_PROBES_H_
#define MUSTER_WORKER_SERVICE_WORKER_PROBES_H_

#include <cstdint>
#include <vector>

#include "base/admin/admin_route.h"
#include "worker/engine/held_epoch.h"
#include "worker/service/health_reporter.h"

namespace muster {

// What `epochs`, all that the worker holds, mean for its health. An epoch that failed counts only
// where no other of its replica serves: what was being prepared may fail without harm. `unformed`
// is that of WorkerEpochs.
WorkObservation ObserveWork(const std::vector<EpochStatus>& epochs, uint64_t steps,
                            uint64_t progress, std::string unformed = "");

// Adds /livez, /readyz and /startupz, each with "?verbose"; "/readyz?standby" also lets a worker
// pass that waits for a rank. `health` outlives the server's requests.
void AddProbes(const HealthReporter& health, AdminRoutes& routes);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_PROBES_H_
