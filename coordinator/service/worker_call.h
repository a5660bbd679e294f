#ifndef MUSTER_COORDINATOR_SERVICE_WORKER_CALL_H_
#define MUSTER_COORDINATOR_SERVICE_WORKER_CALL_H_

#include <grpcpp/client_context.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"

namespace muster {

// One process of a worker.
struct WorkerProcess {
  std::string address;  // "host:port"
  Incarnation incarnation;
  friend auto operator<=>(const WorkerProcess&, const WorkerProcess&) = default;
};

class WorkerCall;

// The calls under way, which can be cancelled and waited for. Thread-safe; outlives its calls.
class WorkerCalls {
 public:
  WorkerCalls() = default;
  WorkerCalls(const WorkerCalls&) = delete;
  WorkerCalls& operator=(const WorkerCalls&) = delete;

  // A call to be; null once all were cancelled.
  std::unique_ptr<WorkerCall> Begin(const WorkerProcess& process, absl::Duration deadline)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Cancel(const WorkerProcess& process) ABSL_LOCKS_EXCLUDED(mu_);
  // Returns when none is left; from now on none begins.
  void CancelAllAndWait() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class WorkerCall;

  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  size_t count_ ABSL_GUARDED_BY(mu_) = 0;  // of WorkerCall objects
  std::map<grpc::ClientContext*, WorkerProcess> contexts_ ABSL_GUARDED_BY(mu_);
};

// A call under way: alive from before its start until its last callback has run.
class WorkerCall {
 public:
  ~WorkerCall();
  WorkerCall(const WorkerCall&) = delete;
  WorkerCall& operator=(const WorkerCall&) = delete;

  grpc::ClientContext* context() const { return context_.get(); }

 private:
  friend class WorkerCalls;
  explicit WorkerCall(WorkerCalls& calls)
      : calls_(calls), context_(std::make_unique<grpc::ClientContext>()) {}

  WorkerCalls& calls_;
  std::unique_ptr<grpc::ClientContext> context_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_WORKER_CALL_H_
