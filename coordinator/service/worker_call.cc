#include "coordinator/service/worker_call.h"

#include <chrono>

#include "absl/time/time.h"

namespace muster {

std::unique_ptr<WorkerCall> WorkerCalls::Begin(const WorkerProcess& process,
                                               absl::Duration deadline) {
  absl::MutexLock lock(&mu_);
  if (stopped_) return nullptr;
  std::unique_ptr<WorkerCall> call(new WorkerCall(*this));
  // Not absl::Now(), which learns only within two seconds that somebody has set the clock.
  call->context()->set_deadline(std::chrono::system_clock::now() +
                                absl::ToChronoNanoseconds(deadline));
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
