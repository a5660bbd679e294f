// muster-coordinator: flags -> options -> wiring.
#include <unistd.h>

#include <iostream>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/process.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "coordinator/options.h"
#include "coordinator/service/coordinator_server.h"
#include "coordinator/service/grpc_worker_client.h"
#include "coordinator/ticker.h"

namespace muster {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr int kHeartbeatsPerLease = 5;
// An orderly end as a whole, and what calls may take of it.
constexpr absl::Duration kEnd = absl::Seconds(2);
constexpr absl::Duration kGrace = absl::Milliseconds(500);

Coordinator::Options ToCoordinatorOptions(const CoordinatorOptions& options) {
  return {.membership = {.lease = options.lease},
          .reconfiguration = {.config = options.config,
                              .resize_range = options.resize_range,
                              .replica = {.phase_timeout = options.phase_timeout}}};
}

void LogStart(const CoordinatorOptions& options, const ListenAddress& address) {
  const ParallelConfig& config = options.config;
  Logger().Info("listening on ", address.ToString(), " for ", config.world_size() * config.replicas,
                " workers: tp=", config.tp, " cp=", config.cp, " replicas=", config.replicas);
  if (IsLoopback(address)) return;
  Logger().Warning("INSECURE: plaintext on ", address.ToString(),
                   ": whoever reaches this port can read everything and become a rank");
}

absl::Status Run(const CoordinatorOptions& options, pid_t parent, ShutdownSignal& shutdown) {
  if (options.die_with_parent) MUSTER_RETURN_IF_ERROR(DieWithParent(parent));
  GrpcWorkerClient workers;
  Coordinator coordinator(ToCoordinatorOptions(options), Clock::Real(), workers);
  const absl::Cleanup no_callbacks = [&workers] { workers.Stop(); };
  MUSTER_ASSIGN_OR_RETURN(
      const auto server,
      CoordinatorServer::Start(
          {.listen = options.listen, .heartbeat_interval = options.lease / kHeartbeatsPerLease},
          coordinator));
  LogStart(options, server->address());
  if (!options.port_file.empty()) {
    MUSTER_RETURN_IF_ERROR(WritePortFile(options.port_file, server->address().ToString()));
  }
  const Ticker ticker(kTick, [&coordinator] { coordinator.Tick(); });
  shutdown.Wait();
  Logger().Info("stopping");
  ExitWithin(kEnd, 0);
  server->Shutdown(kGrace);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const pid_t parent = getppid();
  ShutdownSignal shutdown;
  const auto options = ParseOptions(argc, argv, std::cout);
  absl::Status status = options.status();
  if (status.ok() && !options->has_value()) return 0;
  if (status.ok()) status = InitLogging("coordinator", (*options)->log_level);
  if (status.ok()) status = Run(**options, parent, shutdown);
  if (status.ok()) return 0;
  std::cerr << "muster-coordinator: " << status.message() << std::endl;
  return options.ok() ? 1 : 2;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) { return muster::Main(argc, argv); }
