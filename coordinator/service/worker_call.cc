#include "coordinator/service/worker_call.h"

#include "absl/time/time.h"
#include "base/wire_time.h"

namespace muster {

std::unique_ptr<WorkerCall> WorkerCalls::Begin(const WorkerProcess& process,
                                               absl::Duration deadline) {
  absl::MutexLock lock(&mu_);
  if (stopped_) return nullptr;
  std::unique_ptr<WorkerCall> call(new WorkerCall(*this));
  call->context()->set_deadline(DeadlineAfter(deadline));
  contexts_.emplace(call->context(), process);
  ++count_;
  return call;
}

void WorkerCalls::Cancel(const WorkerProcess& process) {
  absl::MutexLock lock(&mu_);
  for (auto& [context, callee] : contexts_) {
    if (callee == process) context->TryCancel();
  }
}

void WorkerCalls::CancelAllAndWait() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (auto& [context, callee] : contexts_) context->TryCancel();
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return count_ == 0; };
  mu_.Await(absl::Condition(&idle));
}

// The context holds the channel, and goes before the call stops to count.
WorkerCall::~WorkerCall() {
  {
    absl::MutexLock lock(&calls_.mu_);
    calls_.contexts_.erase(context_.get());
  }
  context_.reset();
  absl::MutexLock lock(&calls_.mu_);
  --calls_.count_;
}

}  // namespace muster
