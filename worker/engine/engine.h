// The leader's engine: requests in, stamped steps out, answers back.
#ifndef MUSTER_WORKER_ENGINE_ENGINE_H_
#define MUSTER_WORKER_ENGINE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "worker/engine/batch.h"
#include "worker/engine/relay.h"
#include "worker/engine/sampler.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/step_runner.h"

namespace muster {

// Of one epoch, on its leader. Requests wait in a queue and run one after another on the thread
// that is in Run. Thread-safe but for Run.
class Engine {
 public:
  struct Options {
    Epoch epoch;
    BatchLimits limits;
    absl::Duration step_timeout = absl::Seconds(10);  // longest wait for a follower that is behind
    // Called on the thread of Run after every request that changed something.
    std::function<void(StepNumber last)> on_change = [](StepNumber) {};
  };
  // `done` is called exactly once, on the thread of Run or, for what is refused at once, within the
  // call.
  using ForwardDone = std::function<void(absl::StatusOr<ForwardResult>)>;
  using FreeDone = std::function<void(absl::StatusOr<int> freed)>;

  // All outlive it; the thread of Run is their only user.
  Engine(const Options& options, SequenceTable& sequences, RelaySender& relay, StepRunner& runner);

  // Errors: those of CheckBatch and SequenceTable::Append; FAILED_PRECONDITION (STALE_EPOCH);
  // UNAVAILABLE (not open, or drained; KV untouched); the epoch's failure, with `kv_written` where
  // the step was stamped. A batch that is refused has changed nothing.
  void Forward(ForwardBatch batch, ForwardDone done) ABSL_LOCKS_EXCLUDED(mu_);
  // Gives back the KV blocks of a client's sequences; an unknown one is no error.
  void Free(std::string client_id, std::vector<std::string> sequence_ids,
            std::optional<Epoch> expected_epoch, FreeDone done) ABSL_LOCKS_EXCLUDED(mu_);

  const Options& options() const { return options_; }
  Capacity capacity() const ABSL_LOCKS_EXCLUDED(mu_);

  // Lets requests in.
  void Open() ABSL_LOCKS_EXCLUDED(mu_);
  // Lets none in any more, and waits until those in flight are answered. DEADLINE_EXCEEDED.
  absl::Status Drain(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  // Answers all that wait, and all that come later, with `reason`; Run returns once the step that
  // it is in has ended. The first reason stays.
  void Stop(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // Serves until Stop, or until a step fails: the reason of either. Once.
  absl::Status Run() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct ForwardRequest {
    ForwardBatch batch;
    ForwardDone done;
    absl::Time arrived;
  };
  struct FreeRequest {
    std::string client_id;
    std::vector<std::string> sequence_ids;
    FreeDone done;
  };
  using Request = std::variant<ForwardRequest, FreeRequest>;

  // OK, or why nothing is let in.
  absl::Status CheckOpen(std::optional<Epoch> expected) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Handle(FreeRequest& request);
  // The failure of a stamped step, which ends the epoch; OK when the request was answered, be it
  // with a refusal.
  absl::Status Handle(ForwardRequest& request);
  // Stamps step_ and runs it.
  absl::StatusOr<ForwardResult> RunStep(absl::Time begun);
  absl::StatusOr<std::vector<SliceOutput>> AnswerAll(const ForwardBatch& batch);
  void NoteCapacity() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;

  // The thread of Run only.
  SequenceTable& sequences_;
  RelaySender& relay_;
  StepRunner& runner_;
  Step step_;

  mutable absl::Mutex mu_;
  std::deque<Request> queue_ ABSL_GUARDED_BY(mu_);
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status stopped_ ABSL_GUARDED_BY(mu_);
  Capacity capacity_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_ENGINE_H_
