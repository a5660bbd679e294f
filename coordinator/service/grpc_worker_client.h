#ifndef MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_
#define MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/service/worker_call.h"
#include "coordinator/worker_client.h"

namespace muster {

class TlsCredentials;
class WorkerConnection;

// Workers over muster.v1.WorkerControl: a connection per process, kept until Forget, and a request
// id per call.
class GrpcWorkerClient : public WorkerClient {
 public:
  // Plaintext without `tls`; with it, each call reaches the worker that it is for, or nobody.
  explicit GrpcWorkerClient(std::shared_ptr<const TlsCredentials> tls = nullptr);
  // As Stop().
  ~GrpcWorkerClient() override;

  // Ends all calls and returns when their callbacks have. Calls that are made later do nothing and
  // never call back. Not from a callback.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  void RunPhase(FormingPhase phase, const RankTarget& target, const Topology& topology,
                const PhaseInputs& inputs, OnProgress on_progress, OnPhaseDone done) override;
  void DescribeCache(const RankTarget& target, absl::Duration deadline, OnDescribed done) override;
  void Drain(const RankTarget& target, absl::Duration timeout, OnDrained done) override;
  void Release(const RankTarget& target, const absl::Status& why, absl::Duration deadline,
               OnReleased done) override;
  void Forget(const std::string& address, Incarnation incarnation) override
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Makes the call `method` with `request`, whose header it fills in; `what` is the call in words.
  // `done` gets how it ended, and the answer.
  template <typename Response, typename Request, typename Method, typename Done>
  void CallUnary(Method method, Request request, const char* what, const RankTarget& target,
                 absl::Duration deadline, Done done);
  template <typename Response, typename Request, typename Method>
  void CallStream(Method method, Request request, const char* what, const RankTarget& target,
                  absl::Duration deadline, OnProgress on_progress, OnPhaseDone done);

  template <typename Request>
  void FillHeader(const RankTarget& target, Request* request);
  std::shared_ptr<WorkerConnection> Connect(const RankTarget& target) ABSL_LOCKS_EXCLUDED(mu_);
  // To be called once a call on `connection` has started.
  void Keep(std::shared_ptr<WorkerConnection> connection) ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<const TlsCredentials> tls_;
  const uint64_t id_prefix_;  // random
  std::atomic<uint64_t> last_id_ = 0;
  WorkerCalls calls_;

  absl::Mutex mu_;
  std::map<WorkerProcess, std::shared_ptr<WorkerConnection>> connections_ ABSL_GUARDED_BY(mu_);
  // The first that was used, until Stop. gRPC's callback threads end with the last channel that
  // used them, and crash when they themselves let go of it, as they do after a call.
  std::shared_ptr<WorkerConnection> kept_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_GRPC_WORKER_CLIENT_H_
