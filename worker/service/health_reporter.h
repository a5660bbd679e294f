#ifndef MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_
#define MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "base/ids.h"

namespace grpc {
class HealthCheckServiceInterface;
}  // namespace grpc

namespace muster {

// Tells grpc.health.v1 whether this worker serves: SERVING while it holds an active epoch, for the
// server as a whole ("") and for "muster.v1.Inference". Thread-safe.
class HealthReporter {
 public:
  // Begins with NOT_SERVING, and with nobody to tell.
  HealthReporter() = default;

  // Tells `service` what is so now, and whenever it changes. It is Server::GetHealthCheckService(),
  // which exists when grpc::EnableDefaultHealthCheckService(true) was called before the server was
  // built; it outlives the last call of this. Null: nothing is reported.
  void Attach(grpc::HealthCheckServiceInterface* service) ABSL_LOCKS_EXCLUDED(mu_);

  // Both idempotent.
  void EpochActivated(ReplicaIndex replica, Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);
  void EpochEnded(ReplicaIndex replica, Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Report() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  grpc::HealthCheckServiceInterface* service_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::flat_hash_set<std::pair<ReplicaIndex, Epoch>> active_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_HEALTH_REPORTER_H_
