// The leader's engine: requests in, stamped steps out, answers back.
#ifndef MUSTER_WORKER_ENGINE_ENGINE_H_
#define MUSTER_WORKER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "worker/engine/batch.h"
#include "worker/engine/relay.h"
#include "worker/engine/request_queue.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/step_runner.h"

namespace muster {

// A client that was silent for the length of its lease, and what it lost.
struct ClientExpiry {
  std::string client_id;
  absl::Duration lease;
  int sequences = 0;
  int64_t kv_blocks = 0;
};

// Of one epoch, on its leader. Requests run one after another on the thread that is in Run.
// Thread-safe but for Run.
class Engine {
 public:
  struct Options {
    BatchLimits limits;
    RequestQueue::Options queue;
    absl::Duration step_timeout = absl::Seconds(10);  // longest wait for a follower that is behind
    // Called on the thread of Run; must not block.
    std::function<void(StepNumber last)> on_change = [](StepNumber) {};  // after every request
    std::function<void(int tokens)> on_tokens = [](int) {};              // rows of every step
    std::function<void(const ClientExpiry&)> on_expired = [](const ClientExpiry&) {};
    // What is known of the epoch's end, which names the culprit better than the step that failed of
    // it; OK as long as nothing is.
    std::function<absl::Status()> known_failure = [] { return absl::OkStatus(); };
  };
  // Told that the capacity has changed, and in the end why there will be none any more. On the
  // thread of Run or of Stop, or within WatchCapacity; must not block.
  using CapacityWatcher = std::function<void(const absl::Status& end)>;

  // All outlive it; the thread of Run is their only user.
  Engine(const Options& options, SequenceTable& sequences, RelaySender& relay, StepRunner& runner);

  // Runs a batch, or does not, all of it. Errors: those of CheckBatch, RequestQueue::Push and
  // SequenceTable::Append; what the caller gave up with (KV untouched); the epoch's failure, with
  // `kv_written` where a step was stamped.
  void Forward(ForwardBatch batch, ForwardCall call);
  // Gives back sequences; an unknown one is no error. Errors: INVALID_ARGUMENT (ids), those of
  // RequestQueue::Push.
  void Free(FreeOrder order, RequestQueue::Done<int> done);
  // Errors: INVALID_ARGUMENT (ids), those of RequestQueue::Push and SequenceTable::Fork; the
  // epoch's failure.
  void Fork(ForkOrder order, RequestQueue::Done<Forked> done);

  const Options& options() const { return options_; }
  // Leases of clients, and how many requests wait.
  RequestQueue& queue() { return queue_; }
  const RequestQueue& queue() const { return queue_; }
  Capacity capacity() const ABSL_LOCKS_EXCLUDED(mu_);
  // Until the watcher is destroyed, which the engine never does.
  void WatchCapacity(std::weak_ptr<CapacityWatcher> watcher) ABSL_LOCKS_EXCLUDED(mu_);

  // Lets requests in.
  void Open() { queue_.Open(); }
  // Lets none in any more, and waits until those in flight are answered. DEADLINE_EXCEEDED.
  absl::Status Drain(absl::Duration timeout) { return queue_.Drain(timeout); }
  // Answers all that wait, and all that come later, with `reason`; Run returns once the step that
  // it is in has ended. The first reason stays.
  void Stop(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // Serves until Stop, or until a step fails: the reason of either. Once.
  absl::Status Run() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // The failure of a stamped step, which ends the epoch; OK when the request was answered, be it
  // with a refusal.
  absl::Status Handle(const std::shared_ptr<RequestQueue::Forward>& request);
  absl::Status Handle(RequestQueue::Free& request);
  absl::Status Handle(RequestQueue::Fork& request);
  absl::Status Handle(RequestQueue::Expired& expired);

  // Why the epoch ends, of which a step failed with `status`.
  absl::Status FailureOf(const absl::Status& status) const;
  // Stamps the steps of a batch and runs them.
  absl::StatusOr<ForwardResult> RunSteps(const ForwardBatch& batch);
  absl::Status RunStep(const ForwardBatch& batch, PlannedStep& planned, ForwardResult& result);
  // Of the step that ran last.
  void AnswerStep(const ForwardBatch& batch, const PlannedStep& planned, ForwardResult& result);
  void NoteCapacity() ABSL_LOCKS_EXCLUDED(mu_);
  // Before whoever caused it is answered.
  void NoteChange() ABSL_LOCKS_EXCLUDED(mu_);
  void TellWatchers(const absl::Status& end) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;

  RequestQueue queue_;

  // The thread of Run only.
  SequenceTable& sequences_;
  RelaySender& relay_;
  StepRunner& runner_;
  std::vector<PlannedStep> steps_;

  mutable absl::Mutex mu_;
  Capacity capacity_ ABSL_GUARDED_BY(mu_);
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;  // requests, as watchers know it
  std::list<std::weak_ptr<CapacityWatcher>> watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_ENGINE_H_
