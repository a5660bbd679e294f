#ifndef MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_
#define MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/worker_client.h"

namespace grpc {
class ClientContext;
class Status;
}  // namespace grpc

namespace muster {

class WorkerConnection;

// Workers over muster.v1.WorkerControl: a connection per process, kept until Forget, and a request
// id per call.
class GrpcWorkerClient : public WorkerClient {
 public:
  GrpcWorkerClient();
  // As Stop().
  ~GrpcWorkerClient() override;

  // Ends all calls and returns when their callbacks have. Calls that are made later do nothing and
  // never call back. Not from a callback.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  void RunPhase(FormingPhase phase, const RankTarget& target, const Topology& topology,
                absl::Duration wait_bound, absl::Duration deadline, OnProgress on_progress,
                OnPhaseDone done) override;
  void Release(const RankTarget& target, absl::Duration deadline, OnReleased done) override;
  void Forget(const std::string& address, Incarnation incarnation) override
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using ProcessKey = std::pair<std::string, Incarnation>;

  // Makes the call `method` with `request`, whose header it fills in; `what` is the call in words.
  template <typename Response, typename Request, typename Method>
  void CallUnary(Method method, Request request, const char* what, const RankTarget& target,
                 absl::Duration deadline, OnReleased done);
  template <typename Response, typename Request, typename Method>
  void CallStream(Method method, Request request, const char* what, const RankTarget& target,
                  absl::Duration deadline, OnProgress on_progress, OnPhaseDone done);

  template <typename Request>
  void FillHeader(const RankTarget& target, Request* request);
  // The connection to the target's process, with `call` among its calls until End; null after
  // Stop().
  std::shared_ptr<WorkerConnection> Begin(const RankTarget& target, grpc::ClientContext* call)
      ABSL_LOCKS_EXCLUDED(mu_);
  void End(grpc::ClientContext* call) ABSL_LOCKS_EXCLUDED(mu_);

  const uint64_t id_prefix_;  // random
  std::atomic<uint64_t> last_id_ = 0;

  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::map<ProcessKey, std::shared_ptr<WorkerConnection>> connections_ ABSL_GUARDED_BY(mu_);
  std::map<grpc::ClientContext*, ProcessKey> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_
