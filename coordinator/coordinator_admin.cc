#include "coordinator/coordinator_admin.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/admin/statusz/statusz.h"
#include "base/clock.h"
#include "base/daemon_metrics.h"
#include "base/listen_address.h"
#include "base/logging.h"
#include "base/metrics/metrics_text.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "base/version.h"
#include "coordinator/service/fleet_metrics.h"
#include "coordinator/service/fleet_statusz.h"

namespace muster {
namespace {

// Its loop runs 20 times a second.
constexpr absl::Duration kStuck = absl::Seconds(10);

std::string MetricsPage(const CoordinatorAdmin& about, Coordinator& coordinator) {
  MetricsText text;
  AddDaemonMetrics({.daemon = "coordinator",
                    .build = kVersion,
                    .insecure = about.insecure,
                    .started = about.started},
                   text);
  AddFleetMetrics(coordinator, about.lease, text);
  return text.Write();
}

DaemonFacts FactsOf(const CoordinatorAdmin& about) {
  return {.role = "coordinator",
          .address = about.address,
          .build = kVersion,
          .insecure = about.insecure ? "this coordinator takes plaintext from other machines: "
                                       "whoever reaches it can read everything and become a rank"
                                     : "",
          .started = about.started};
}

}  // namespace

std::vector<HealthCheck> CoordinatorChecks(const Coordinator& coordinator, absl::Time now) {
  const absl::Duration silence = now - coordinator.last_tick();
  return {{.name = "loop",
           .passes = silence < kStuck,
           .reason = absl::StrCat("looked after the fleet ", InUnits(silence), " ago")},
          {.name = "open",
           .passes = !coordinator.closed(),
           .reason = coordinator.closed() ? "this coordinator is stopping" : "takes calls"}};
}

absl::StatusOr<std::unique_ptr<AdminServer>> ServeAdmin(const std::string& listen,
                                                        const CoordinatorAdmin& about,
                                                        Coordinator& coordinator) {
  if (listen.empty()) return nullptr;
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(listen));
  AdminRoutes routes;
  routes["/livez"] = [&coordinator](const AdminRequest& request) {
    std::vector<HealthCheck> checks = CoordinatorChecks(coordinator, Clock::Real().Now());
    return HealthAnswer("livez", {checks.front()}, request);
  };
  for (const std::string name : {"readyz", "startupz"}) {
    routes[absl::StrCat("/", name)] = [&coordinator, name](const AdminRequest& request) {
      return HealthAnswer(name, CoordinatorChecks(coordinator, Clock::Real().Now()), request);
    };
  }
  routes["/metrics"] = [about, &coordinator](const AdminRequest&) {
    return AdminResponse{.content_type = std::string(kMetricsContentType),
                         .body = MetricsPage(about, coordinator)};
  };
  AddStatusz(
      [about, &coordinator] {
        return FleetStatusz(coordinator.fleet(), FactsOf(about), absl::Now());
      },
      &routes);
  MUSTER_ASSIGN_OR_RETURN(auto server, AdminServer::Start(address, std::move(routes)));
  Logger().Info("admin port on ", server->address().ToString());
  return server;
}

}  // namespace muster
