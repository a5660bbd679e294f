#include "worker/service/worker_probes.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/text.h"

namespace muster {
namespace {

bool Serves(const EpochStatus& epoch) { return epoch.report.state == WorkerState::kServing; }

std::string Named(const EpochStatus& epoch) {
  return absl::StrCat("replica ", epoch.report.replica.value(), " epoch ",
                      epoch.report.epoch.value());
}

// "replica 0 epoch 3: load, 1,024 of 4,096 bytes".
std::string DescribePreparation(const EpochStatus& epoch) {
  const Progress& progress = epoch.report.progress;
  const std::string begun =
      absl::StrCat(Named(epoch), ": ",
                   progress.phase.empty() ? WorkerStateName(epoch.report.state) : progress.phase);
  if (progress.total == 0) return begun;
  return absl::StrCat(begun, ", ", WithCommas(progress.done), " of ", WithCommas(progress.total),
                      " ", progress.unit);
}

}  // namespace

WorkObservation ObserveWork(const std::vector<EpochStatus>& epochs, uint64_t steps,
                            uint64_t progress, std::string unformed) {
  WorkObservation work{.steps = steps, .progress = progress, .unformed = std::move(unformed)};
  std::set<ReplicaIndex> serving;
  for (const EpochStatus& epoch : epochs) {
    if (Serves(epoch)) serving.insert(epoch.report.replica);
    work.requests_in_flight += epoch.requests_in_flight;
  }
  for (const EpochStatus& epoch : epochs) {
    const WorkerState state = epoch.report.state;
    if (state == WorkerState::kFailed && serving.count(epoch.report.replica) == 0) {
      work.failed.push_back(absl::StrCat(Named(epoch), ": ", epoch.failure.message()));
    }
    if (state < WorkerState::kServing) work.preparing.push_back(DescribePreparation(epoch));
  }
  return work;
}

void AddProbes(const HealthReporter& health, AdminRoutes& routes) {
  routes["/livez"] = [&health](const AdminRequest& request) {
    return HealthAnswer("livez", health.LiveChecks(), request);
  };
  routes["/readyz"] = [&health](const AdminRequest& request) {
    return HealthAnswer("readyz", health.ReadyChecks(request.Asks("standby")), request);
  };
  routes["/startupz"] = [&health](const AdminRequest& request) {
    return HealthAnswer("startupz", health.StartupChecks(), request);
  };
}

}  // namespace muster
