// One call on the life of an epoch, and all who wait for its outcome.
#ifndef MUSTER_WORKER_ENGINE_EPOCH_OPERATION_H_
#define MUSTER_WORKER_ENGINE_EPOCH_OPERATION_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/takeover.h"
#include "base/topology.h"
#include "worker/engine/epoch_context.h"

namespace muster {

// What can be asked of an epoch that is assigned.
enum class EpochCommand { kLoad, kWarmup, kCapture, kActivate, kDrain, kRelease };
// "load", ..., "release".
const char* EpochCommandName(EpochCommand command);

// Which epoch, by whom, and which call it is: the same call again has the same request id.
struct EpochCall {
  std::string request_id;
  Term term;
  ReplicaIndex replica;
  Epoch epoch;
  absl::Status why;                      // of a Release: why the epoch failed, if it did
  EpochContext::TakeoverOrder takeover;  // of an Activate that takes over; from 0: it does not
};

// What a call left.
struct EpochOutcome {
  std::vector<LedgerEntry> ledger;  // after load, warmup and capture
  EpochContext::Captured captured;  // by capture
  Takeover takeover;                // by activate
  int sequences = 0;                // held when it was drained
};

// Who waits for an operation. Called on any thread, one call at a time; neither may block, nor call
// the worker's epochs.
struct EpochWatcher {
  std::function<void(const Progress&)> on_progress = [](const Progress&) {};
  // Exactly once, and last.
  std::function<void(const absl::StatusOr<EpochOutcome>&)> on_done;
};

// Thread-safe.
class EpochOperation {
 public:
  EpochOperation(EpochCommand command, EpochCall call, absl::Duration timeout)
      : command_(command), call_(std::move(call)), timeout_(timeout) {}

  EpochCommand command() const { return command_; }
  const EpochCall& call() const { return call_; }
  absl::Duration timeout() const { return timeout_; }

  // Tells what is known by now within the call, and the rest as it comes.
  void Watch(EpochWatcher watcher) ABSL_LOCKS_EXCLUDED(mu_);
  void Report(const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_);
  // Once.
  void Finish(absl::StatusOr<EpochOutcome> result) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const EpochCommand command_;
  const EpochCall call_;
  const absl::Duration timeout_;

  absl::Mutex mu_;
  std::vector<EpochWatcher> watchers_ ABSL_GUARDED_BY(mu_);
  std::optional<Progress> progress_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::StatusOr<EpochOutcome>> result_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_EPOCH_OPERATION_H_
