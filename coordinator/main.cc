// muster-coordinator: flags -> options -> wiring.
#include <unistd.h>

#include <iostream>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/process.h"
#include "base/status_macros.h"
#include "base/ticker.h"
#include "base/tls_credentials.h"
#include "base/tls_news.h"
#include "coordinator/coordinator.h"
#include "coordinator/coordinator_admin.h"
#include "coordinator/options.h"
#include "coordinator/service/coordinator_server.h"
#include "coordinator/service/grpc_worker_client.h"

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
                              .replica_per_domain = options.replica_per_domain,
                              .resize_range = options.resize_range,
                              .replica = {.phase_timeout = options.phase_timeout}}};
}

void LogStart(const CoordinatorOptions& options, const TlsCredentials* tls,
              const ListenAddress& address) {
  const ParallelConfig& config = options.config;
  const std::string sizes = absl::StrCat("tp=", config.tp, " cp=", config.cp);
  if (options.replica_per_domain) {
    Logger().Info("listening on ", address.ToString(), ": ", sizes,
                  ", a replica in each domain with ", config.world_size(), " workers");
  } else {
    Logger().Info("listening on ", address.ToString(), " for ",
                  config.world_size() * config.replicas, " workers: ", sizes,
                  " replicas=", config.replicas);
  }
  if (tls != nullptr) Logger().Info("mutual TLS as ", tls->identity().ToUri());
  if (tls != nullptr || IsLoopback(address)) return;
  Logger().Warning("INSECURE: plaintext on ", address.ToString(),
                   ": whoever reaches this port can read everything and become a rank");
}

absl::Status Run(const CoordinatorOptions& options, pid_t parent, ShutdownSignal& shutdown) {
  RaiseOpenFilesLimit();
  if (options.die_with_parent) MUSTER_RETURN_IF_ERROR(DieWithParent(parent));
  MUSTER_ASSIGN_OR_RETURN(const auto tls, TlsCredentials::Open(options.tls));
  const auto news = tls == nullptr ? nullptr : LogTlsNews(options.tls, tls->identity());
  GrpcWorkerClient workers(tls);
  Coordinator coordinator(ToCoordinatorOptions(options), Clock::Real(), workers);
  const absl::Cleanup no_callbacks = [&workers] { workers.Stop(); };
  MUSTER_ASSIGN_OR_RETURN(
      const auto server,
      CoordinatorServer::Start({.listen = options.listen,
                                .tls = tls,
                                .heartbeat_interval = options.lease / kHeartbeatsPerLease},
                               coordinator));
  LogStart(options, tls.get(), server->address());
  if (!options.port_file.empty()) {
    MUSTER_RETURN_IF_ERROR(WritePortFile(options.port_file, server->address().ToString()));
  }
  const Ticker ticker(kTick, [&coordinator] { coordinator.Tick(); });
  MUSTER_ASSIGN_OR_RETURN(const auto admin,
                          ServeAdmin(options.admin_listen,
                                     {.address = server->address().ToString(),
                                      .insecure = tls == nullptr && !IsLoopback(server->address()),
                                      .lease = options.lease,
                                      .started = absl::Now()},
                                     coordinator));
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
  if (status.ok())
    status = InitLogging(
        {.role = "coordinator", .level = (*options)->log_level, .format = (*options)->log_format});
  if (status.ok()) status = Run(**options, parent, shutdown);
  if (status.ok()) return 0;
  LogFailure("muster-coordinator", status);
  return options.ok() ? 1 : 2;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) { return muster::Main(argc, argv); }
