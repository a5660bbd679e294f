// A worker at work: its device, the epochs it holds, its port, and its place in the fleet.
#ifndef MUSTER_WORKER_WORKER_DAEMON_H_
#define MUSTER_WORKER_WORKER_DAEMON_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/engine_backend.h"
#include "worker/engine/worker_epochs.h"
#include "worker/model/model_source.h"
#include "worker/options.h"
#include "worker/service/expiry_outbox.h"
#include "worker/service/health_reporter.h"
#include "worker/service/membership_client.h"
#include "worker/service/worker_server.h"

namespace muster {

class WorkerDaemon {
 public:
  // Called once at most, on another thread: this worker is of no use any more, since no coordinator
  // will ever take it in, or its device is lost to this process.
  using OnUseless = std::function<void(const absl::Status&)>;

  // It listens, and enlists for as long as it lives. Errors: those of WorkerServer::Start.
  static absl::StatusOr<std::unique_ptr<WorkerDaemon>> Start(const WorkerOptions& options,
                                                             ModelSource model,
                                                             std::unique_ptr<EngineBackend> backend,
                                                             OnUseless on_useless);
  // As Stop.
  ~WorkerDaemon();

  // Leaves the fleet, answers all requests, gives all epochs back and closes the port: a fraction
  // of a second, and what a step that is under way takes. May be repeated.
  void Stop();

 private:
  WorkerDaemon(const WorkerOptions& options, ModelSource model,
               std::unique_ptr<EngineBackend> backend, OnUseless on_useless);

  absl::Status Listen();
  void Enlist();
  EpochListener Listener();
  // Ends the process where the device is lost, so that another worker can take its place.
  void CheckDevice();
  void BeUseless(const absl::Status& reason);

  // Constant after construction.
  const WorkerOptions options_;
  const ModelSource model_;
  const Incarnation incarnation_;
  const std::shared_ptr<grpc::Channel> coordinator_;
  const std::unique_ptr<EngineBackend> backend_;
  const OnUseless on_useless_;

  std::atomic<bool> useless_{false};
  HealthReporter health_;
  ExpiryOutbox expiries_;
  WorkerEpochs epochs_;
  std::unique_ptr<WorkerServer> server_;        // constant after Start
  std::optional<MembershipClient> membership_;  // constant after Start
};

}  // namespace muster

#endif  // MUSTER_WORKER_WORKER_DAEMON_H_
