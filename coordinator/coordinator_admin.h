// The coordinator's admin port.
#ifndef MUSTER_COORDINATOR_COORDINATOR_ADMIN_H_
#define MUSTER_COORDINATOR_COORDINATOR_ADMIN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/admin/admin_server.h"
#include "base/admin/health_check.h"
#include "coordinator/coordinator.h"

namespace muster {

struct CoordinatorAdmin {
  std::string address;  // of the coordinator's services
  bool insecure = false;
  absl::Duration lease;  // of workers
  absl::Time started;
};

// That its own loop runs and that it takes calls: a coordinator is ready without workers, which
// could not find it otherwise.
std::vector<HealthCheck> CoordinatorChecks(const Coordinator& coordinator, absl::Time now);

// Serves /livez, /readyz, /startupz, /metrics and /statusz at `listen` ("host:port"); null where it
// is empty. `coordinator` outlives it. Errors: those of AdminServer::Start.
absl::StatusOr<std::unique_ptr<AdminServer>> ServeAdmin(const std::string& listen,
                                                        const CoordinatorAdmin& about,
                                                        Coordinator& coordinator);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_COORDINATOR_ADMIN_H_
