// A worker's admin port, and the look at its own health that feeds it.
#include "absl/time/clock.h"
#include "base/admin/admin_server.h"
#include "base/admin/statusz/statusz.h"
#include "base/daemon_metrics.h"
#include "base/listen_address.h"
#include "base/logging.h"
#include "base/metrics/metrics_text.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/service/worker_metrics.h"
#include "worker/service/worker_probes.h"
#include "worker/service/worker_statusz.h"
#include "worker/worker_daemon.h"

namespace muster {
namespace {

// Between two looks; a stall is noticed as much later.
constexpr absl::Duration kLook = absl::Milliseconds(250);

}  // namespace

bool WorkerDaemon::insecure() const { return tls_ == nullptr && !IsLoopback(server_->address()); }

void WorkerDaemon::ObserveHealth() {
  observer_.emplace(kLook, [this] {
    health_.Observe(ObserveWork(epochs_.Statuses(), counters_->steps(), epochs_.progress(),
                                epochs_.unformed()));
  });
}

absl::Status WorkerDaemon::ListenForAdmin() {
  if (options_.admin_listen.empty()) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListenAddress(options_.admin_listen));
  AdminRoutes routes;
  AddProbes(health_, routes);
  routes["/metrics"] = [this](const AdminRequest&) {
    return AdminResponse{.content_type = std::string(kMetricsContentType), .body = MetricsPage()};
  };
  AddStatusz([this] { return StatuszJson(); }, &routes);
  MUSTER_ASSIGN_OR_RETURN(admin_, AdminServer::Start(listen, std::move(routes)));
  Logger().Info("admin port on ", admin_->address().ToString());
  return absl::OkStatus();
}

std::string WorkerDaemon::MetricsPage() const {
  MetricsText text;
  AddDaemonMetrics(
      {.daemon = "worker", .build = kVersion, .insecure = insecure(), .started = started_}, text);
  const std::vector<EpochStatus> epochs = epochs_.Statuses();
  const DeviceReport device = backend_->device().Report();
  AddWorkerMetrics({.engine = *counters_,
                    .rendezvous = rendezvous_counters_,
                    .epochs = epochs,
                    .device = device,
                    .model = model_.spec,
                    .worker_id = options_.worker_id,
                    .ready = AllPass(health_.ReadyChecks(false)),
                    .collective_wait = backend_->collectives().waited()},
                   text);
  return text.Write();
}

std::string WorkerDaemon::StatuszJson() const {
  return WorkerStatusz({.role = "worker",
                        .name = options_.worker_id,
                        .address = server_->address().ToString(),
                        .build = kVersion,
                        .insecure = insecure() ? "this worker takes plaintext from other machines: "
                                                 "whoever reaches it can read and change everything"
                                               : "",
                        .started = started_},
                       backend_->device().Report(), model_.spec, epochs_.Statuses(), absl::Now());
}

}  // namespace muster
