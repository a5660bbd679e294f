// What a worker's /statusz shows: itself, and the epochs that it holds, as JSON.
#ifndef MUSTER_WORKER_SERVICE_WORKER_STATUSZ_H_
#define MUSTER_WORKER_SERVICE_WORKER_STATUSZ_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/admin/statusz/statusz.h"
#include "base/topology.h"
#include "worker/engine/held_epoch.h"

namespace muster {

// {"daemon", "worker", "model", "epochs"} in one line. Names are those of `musterctl --json`; an
// epoch has its topology, this worker's rank in it, and what it holds for it.
std::string WorkerStatusz(const DaemonFacts& daemon, const DeviceReport& device,
                          const ModelSpec& model, const std::vector<EpochStatus>& epochs,
                          absl::Time now);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_STATUSZ_H_
