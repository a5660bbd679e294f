// A worker at work: its device, the epochs it holds, its port, and its place in the fleet.
#ifndef MUSTER_WORKER_WORKER_DAEMON_H_
#define MUSTER_WORKER_WORKER_DAEMON_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/admin/admin_server.h"
#include "base/ticker.h"
#include "base/tls_credentials.h"
#include "worker/departure.h"
#include "worker/engine/engine_backend.h"
#include "worker/engine/engine_counters.h"
#include "worker/engine/span_ring.h"
#include "worker/engine/worker_epochs.h"
#include "worker/model/model_source.h"
#include "worker/options.h"
#include "worker/service/expiry_outbox.h"
#include "worker/service/grpc_rendezvous.h"
#include "worker/service/health_reporter.h"
#include "worker/service/membership_client.h"
#include "worker/service/worker_server.h"

namespace muster {

class WorkerDaemon {
 public:
  // Called once at most, on another thread: this worker is of no use any more, since no coordinator
  // will ever take it in, or its device is lost to this process.
  using OnUseless = std::function<void(const absl::Status&)>;

  // It listens, and enlists for as long as it lives; in plaintext where `tls` is null. Errors:
  // those of WorkerServer::Start.
  static absl::StatusOr<std::unique_ptr<WorkerDaemon>> Start(
      const WorkerOptions& options, std::shared_ptr<const TlsCredentials> tls, ModelSource model,
      std::unique_ptr<EngineBackend> backend, OnUseless on_useless);
  // As Stop.
  ~WorkerDaemon();

  // Takes no new work, is not ready, and has the coordinator hand its ranks over; returns when that
  // is done, when there is nobody who could take them and what is in flight is answered, or after
  // `timeout`, with what is left in the log. Before Stop.
  void Drain(absl::Duration timeout);

  // Leaves the fleet, answers all requests, gives all epochs back and closes the port: a fraction
  // of a second, and what a step that is under way takes. May be repeated.
  void Stop();

 private:
  WorkerDaemon(const WorkerOptions& options, std::shared_ptr<const TlsCredentials> tls,
               ModelSource model, std::unique_ptr<EngineBackend> backend, OnUseless on_useless);

  absl::Status Listen();
  void Enlist();
  EpochListener Listener();
  // Whether other machines reach its services in plaintext.
  bool insecure() const;
  void ObserveHealth();
  absl::Status ListenForAdmin();
  std::string MetricsPage() const;
  std::string StatuszJson() const;
  // Of a drain, where no coordinator takes anything over.
  void FinishRequests();
  // Ends the process where the device is lost, so that another worker can take its place.
  void CheckDevice();
  void BeUseless(const absl::Status& reason);

  // Constant after construction.
  const WorkerOptions options_;
  const std::shared_ptr<const TlsCredentials> tls_;  // null for plaintext
  const std::unique_ptr<Ticker> tls_news_;           // null for plaintext
  const ModelSource model_;
  const Incarnation incarnation_;
  const std::shared_ptr<grpc::Channel> coordinator_;
  const std::unique_ptr<EngineBackend> backend_;
  const OnUseless on_useless_;
  const absl::Time started_ = absl::Now();
  const std::shared_ptr<EngineCounters> counters_ = std::make_shared<EngineCounters>();
  const std::shared_ptr<SpanRing> spans_ = std::make_shared<SpanRing>();

  std::atomic<bool> useless_{false};
  HealthReporter health_;
  Departure departure_;
  ExpiryOutbox expiries_;
  RendezvousCounters rendezvous_counters_;
  WorkerEpochs epochs_;
  std::unique_ptr<WorkerServer> server_;        // constant after Start
  std::optional<MembershipClient> membership_;  // constant after Start
  std::optional<Ticker> observer_;              // constant after Start
  std::unique_ptr<AdminServer> admin_;          // constant after Start; null without an admin port
};

}  // namespace muster

#endif  // MUSTER_WORKER_WORKER_DAEMON_H_
