// Whether this worker serves, and why not: one source for grpc.health.v1 and for the probes.
#ifndef MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_
#define MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/admin/health_check.h"
#include "base/clock.h"
#include "base/ids.h"

namespace grpc {
class HealthCheckServiceInterface;
}  // namespace grpc

namespace muster {

// The worker's work at one moment.
struct WorkObservation {
  uint64_t steps = 0;                  // that have ended, of all epochs
  int requests_in_flight = 0;          // with engines of this worker
  uint64_t progress = 0;               // grows with everything that gets on
  std::vector<std::string> failed;     // "replica 0 epoch 3: ...", of epochs held that have failed
  std::vector<std::string> preparing;  // "replica 0 epoch 3: load, 1 of 3 bytes", of those to serve
  std::string unformed;                // "replica 0 epoch 3: ...", that never came to serve
};

// SERVING, for the server as a whole ("") and for "muster.v1.Inference", while the worker holds an
// active epoch, all epochs that it holds are sound, steps end as long as requests wait for them,
// and it is not draining. "muster.v1.WorkerControl" is SERVING until the server ends. Thread-safe.
class HealthReporter {
 public:
  struct Options {
    absl::Duration stall_timeout = absl::Seconds(5);     // without a step, with requests in flight
    absl::Duration startup_timeout = absl::Minutes(2);   // of a phase that does not get on
    absl::Duration observe_timeout = absl::Seconds(10);  // between two calls of Observe
  };

  // Begins with NOT_SERVING, and with nobody to tell. `clock` outlives it.
  explicit HealthReporter(const Options& options, const Clock& clock = Clock::Real());

  // Tells `service` what is so now, and whenever it changes. It is Server::GetHealthCheckService(),
  // which exists when grpc::EnableDefaultHealthCheckService(true) was called before the server was
  // built; it outlives the last call of this. Null: nothing is reported.
  void Attach(grpc::HealthCheckServiceInterface* service) ABSL_LOCKS_EXCLUDED(mu_);

  // All idempotent.
  void Enlisted(bool enlisted) ABSL_LOCKS_EXCLUDED(mu_);
  void EpochActivated(ReplicaIndex replica, Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);
  void EpochEnded(ReplicaIndex replica, Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);
  // The worker is about to end: NOT_SERVING from now on, whatever it still does.
  void Draining() ABSL_LOCKS_EXCLUDED(mu_);
  // Several times a second.
  void Observe(WorkObservation observation) ABSL_LOCKS_EXCLUDED(mu_);

  // What SERVING depends on. With `standby_counts`, a worker that is enlisted and has no epoch to
  // serve passes as well: it is ready to get one, unless the one that it had could not be formed.
  std::vector<HealthCheck> ReadyChecks(bool standby_counts) const ABSL_LOCKS_EXCLUDED(mu_);
  // That the worker has enlisted once, and that what it prepares gets on.
  std::vector<HealthCheck> StartupChecks() const ABSL_LOCKS_EXCLUDED(mu_);
  // That somebody still observes.
  std::vector<HealthCheck> LiveChecks() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  HealthCheck EpochCheck(bool standby_counts) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  HealthCheck RanksCheck() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  HealthCheck StepsCheck() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  HealthCheck DrainCheck() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<HealthCheck> Ready(bool standby_counts) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Report() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Constant after construction.
  const Options options_;
  const Clock& clock_;

  mutable absl::Mutex mu_;
  grpc::HealthCheckServiceInterface* service_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool reported_ ABSL_GUARDED_BY(mu_) = false;  // what `service_` was told last
  std::set<std::pair<ReplicaIndex, Epoch>> active_ ABSL_GUARDED_BY(mu_);
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool enlisted_ ABSL_GUARDED_BY(mu_) = false;
  bool was_enlisted_ ABSL_GUARDED_BY(mu_) = false;
  WorkObservation last_ ABSL_GUARDED_BY(mu_);
  absl::Time observed_ ABSL_GUARDED_BY(mu_);
  absl::Time step_moved_ ABSL_GUARDED_BY(mu_);  // or nothing was in flight
  absl::Time progressed_ ABSL_GUARDED_BY(mu_);  // or nothing was being prepared
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_
