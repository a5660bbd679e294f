// muster-worker: flags -> options -> wiring.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <iostream>
#include <memory>
#include <utility>

#include "base/logging.h"
#include "base/process.h"
#include "base/status_macros.h"
#include "base/tls_credentials.h"
#include "worker/backend_choice.h"
#include "worker/options.h"
#include "worker/worker_daemon.h"

namespace muster {
namespace {

// An orderly end as a whole; whoever started this process waits little longer.
constexpr absl::Duration kEnd = absl::Seconds(1);

absl::Status Run(const WorkerOptions& options, pid_t parent, ShutdownSignal& shutdown) {
  RaiseOpenFilesLimit();
  if (options.die_with_parent) MUSTER_RETURN_IF_ERROR(DieWithParent(parent));
  // Before anything starts a thread: it sets a variable of the environment.
  MUSTER_ASSIGN_OR_RETURN(auto tls, TlsCredentials::Open(options.tls));
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<EngineBackend> backend, MakeBackend(options));
  MUSTER_ASSIGN_OR_RETURN(const LoadFormat format, ParseLoadFormat(options.load_format));
  MUSTER_ASSIGN_OR_RETURN(
      ModelSource model,
      ModelSource::Open({.directory = options.model,
                         .dtype = options.dtype,
                         .load_format = format,
                         .has_float16 = backend->device().Report().kind == "cuda"}));
  std::promise<absl::Status> refusal;
  std::future<absl::Status> refused = refusal.get_future();
  std::atomic<bool> ending{false};
  MUSTER_ASSIGN_OR_RETURN(const auto daemon,
                          WorkerDaemon::Start(options, std::move(tls), std::move(model),
                                              std::move(backend), [&](const absl::Status& status) {
                                                refusal.set_value(status);
                                                if (!ending.exchange(true)) {
                                                  ShutdownSignal::Request();
                                                }
                                              }));
  const int signal = shutdown.Wait();
  if (!ending.exchange(true) && signal == SIGTERM) daemon->Drain(options.drain_timeout);
  const bool was_refused = refused.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  if (!was_refused) Logger().Info("stopping");
  ExitWithin(kEnd, was_refused ? 1 : 0);
  daemon->Stop();
  return was_refused ? refused.get() : absl::OkStatus();
}

int Main(int argc, char** argv) {
  const pid_t parent = getppid();
  ShutdownSignal shutdown;
  const auto options = ParseOptions(argc, argv, std::cout);
  absl::Status status = options.status();
  if (status.ok() && !options->has_value()) return 0;
  if (status.ok()) {
    status = InitLogging({.role = "worker",
                          .worker = (*options)->worker_id,
                          .level = (*options)->log_level,
                          .format = (*options)->log_format});
  }
  if (status.ok()) status = Run(**options, parent, shutdown);
  if (status.ok()) return 0;
  LogFailure("muster-worker", status);
  return options.ok() ? 1 : 2;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) { return muster::Main(argc, argv); }
