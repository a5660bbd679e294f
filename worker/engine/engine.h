// The leader's engine: requests in, stamped steps out, answers back.
#ifndef MUSTER_WORKER_ENGINE_ENGINE_H_
#define MUSTER_WORKER_ENGINE_ENGINE_H_

#include <cstdint>
#include <deque>
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
#include "base/takeover.h"
#include "worker/engine/batch.h"
#include "worker/engine/engine_counters.h"
#include "worker/engine/relay.h"
#include "worker/engine/request_queue.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/span_ring.h"
#include "worker/engine/step_runner.h"

namespace muster {

// A client that was silent for the length of its lease, and what it lost.
struct ClientExpiry {
  std::string client_id;
  absl::Duration lease;
  int sequences = 0;
  int64_t kv_blocks = 0;
};

// Of one replica, on its leader, through all epochs that take over from each other there: requests,
// sequences and those who watch stay, the means to run steps change. Requests run one after another
// on the thread that is in Run. Thread-safe but for Run.
class Engine {
 public:
  struct Options {
    BatchLimits limits;
    RequestQueue::Options queue;
    std::shared_ptr<EngineCounters> counters;  // not null
  };
  // With what an epoch runs steps. The references outlive the Run; the functions are called on its
  // thread and must not block.
  struct Means {
    Epoch epoch;
    RelaySender& relay;
    StepRunner& runner;
    const RankSpans& spans;
    absl::Duration step_timeout = absl::Seconds(10);  // longest wait for a follower that is behind
    // While KV is computed that an epoch before had: tokens so far, and of all; and the latter once
    // more before the first request.
    std::function<void(int64_t done, int64_t total)> on_rebuild = [](int64_t, int64_t) {};
    std::function<void(int64_t tokens_rebuilt)> on_begun = [](int64_t) {};
    // After every request; KV blocks that are in use on the leader.
    std::function<void(StepNumber last, int64_t used_blocks)> on_change = [](StepNumber, int64_t) {
    };
    std::function<void(int tokens)> on_tokens = [](int) {};  // rows of every step
    std::function<void(const ClientExpiry&)> on_expired = [](const ClientExpiry&) {};
    // What is known of the epoch's end, which names the culprit better than the step that failed of
    // it; OK as long as nothing is.
    std::function<absl::Status()> known_failure = [] { return absl::OkStatus(); };
  };
  // Told that the capacity has changed, and in the end why there will be none any more. On the
  // thread of Run or of Stop, or within WatchCapacity; must not block.
  using CapacityWatcher = std::function<void(const absl::Status& end)>;

  // Something else to be done between two steps.
  enum class TurnEnd { kRunOn, kHandOver };
  using Turn = std::function<absl::StatusOr<TurnEnd>(SequenceTable& sequences, const Means& means)>;

  Engine(const Options& options, std::unique_ptr<SequenceTable> sequences);

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
  // What the sequences hold. Errors of RequestQueue::Push.
  void Describe(RequestQueue::Done<CacheSummary> done) { queue_.Push(std::move(done)); }

  const Options& options() const { return options_; }
  // Leases of clients, the epoch that serves, and how many requests wait.
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

  // Has `turn` called once on the thread of Run, before the requests that wait; never when the
  // engine is stopped before that. Its error ends Run as that of a step does.
  void TakeTurn(Turn turn) ABSL_LOCKS_EXCLUDED(mu_);

  // Serves until Stop, or until a step fails: the reason of either, once for all. OK when a turn
  // handed over: whoever runs it next, which waits for the end of the Run before, goes on there.
  absl::Status Run(const Means& means) ABSL_LOCKS_EXCLUDED(run_mu_, mu_);

 private:
  // The failure of a stamped step, which ends the epoch; OK when the request was answered, be it
  // with a refusal.
  absl::Status Handle(const std::shared_ptr<RequestQueue::Forward>& request);
  absl::Status Handle(RequestQueue::Free& request);
  absl::Status Handle(RequestQueue::Fork& request);
  absl::Status Handle(RequestQueue::Describe& request);
  absl::Status Handle(RequestQueue::Expired& expired);
  absl::Status Handle(RequestQueue::Interruption& interruption);

  // Why the epoch ends, of which a step failed with `status`.
  absl::Status FailureOf(const absl::Status& status) const;
  // Of a request that ran.
  void NoteTimes(const RequestQueue::Forward& request, const ForwardResult& result);
  // Stamps the steps of a batch and runs them.
  absl::StatusOr<ForwardResult> RunSteps(const ForwardBatch& batch);
  absl::Status RunStep(const ForwardBatch& batch, PlannedStep& planned, ForwardResult& result);
  // Of the step that ran last.
  void AnswerStep(const ForwardBatch& batch, const PlannedStep& planned, ForwardResult& result);
  // Of a step that does nothing, until all followers have read it; about 0.1 ms.
  absl::StatusOr<absl::Duration> RoundTrip();
  // Computes the KV again that an epoch before this one had; of how many tokens.
  absl::StatusOr<int64_t> Rebuild();
  void NoteCapacity() ABSL_LOCKS_EXCLUDED(mu_);
  void DropTurns() ABSL_LOCKS_EXCLUDED(mu_);
  // Before whoever caused it is answered.
  void NoteChange() ABSL_LOCKS_EXCLUDED(mu_);
  void TellWatchers(const absl::Status& end) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;

  RequestQueue queue_;
  absl::Mutex run_mu_ ABSL_ACQUIRED_BEFORE(mu_);  // held by Run

  // The thread of Run only.
  const std::unique_ptr<SequenceTable> sequences_;
  const Means* means_ = nullptr;  // while Run runs
  bool handed_over_ = false;
  std::vector<PlannedStep> steps_;
  double prefill_rate_ = 0;  // tokens per second; 0: not known

  mutable absl::Mutex mu_;
  Capacity capacity_ ABSL_GUARDED_BY(mu_);
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;  // requests, as watchers know it
  std::list<std::weak_ptr<CapacityWatcher>> watchers_ ABSL_GUARDED_BY(mu_);
  std::deque<Turn> turns_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_ENGINE_H_
