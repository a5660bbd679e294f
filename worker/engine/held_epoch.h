// One epoch that this worker holds, from Assign to Release.
#ifndef MUSTER_WORKER_ENGINE_HELD_EPOCH_H_
#define MUSTER_WORKER_ENGINE_HELD_EPOCH_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/topology.h"
#include "worker/engine/epoch_context.h"
#include "worker/engine/epoch_operation.h"

namespace muster {

// An epoch that serves and is led from here, as those who make requests see it. Its engine goes on
// in the epoch that takes over from it, so that they need not care; it says which epoch serves.
struct ServingEpoch {
  Epoch epoch;
  ModelSpec model;
  EpochContext::Captured captured;
  std::shared_ptr<Engine> shared_engine;

  Engine& engine() const { return *shared_engine; }
};

// What an operator may know of an epoch.
struct EpochStatus {
  EpochReport report;
  GlobalRank rank;
  std::vector<LedgerEntry> ledger;
  absl::Status failure;  // OK unless FAILED
  Topology topology;
  std::vector<int> buckets;          // rows of its graphs, largest first; none before Capture
  int block_tokens = 0;              // 0 before Capture
  std::vector<FusionReport> fusion;  // by group; none before Capture
  std::optional<Capacity> capacity;  // where it serves and is led from here
  int requests_in_flight = 0;        // of such a one: waiting, and the one that runs
  int clients = 0;                   // of such a one: that have a lease
};

// What becomes of epochs. Called on any thread; none may block, nor call the worker's epochs.
struct EpochListener {
  std::function<void(const Progress&)> on_progress = [](const Progress&) {};
  std::function<void(ReplicaIndex, Epoch)> on_activated = [](ReplicaIndex, Epoch) {};
  // It was active and takes no steps any more: drained, taken over from, failed or given back.
  std::function<void(ReplicaIndex, Epoch)> on_ended = [](ReplicaIndex, Epoch) {};
  // A client of the epoch, which is led from here, has lost its sequences.
  std::function<void(ReplicaIndex, Epoch, const ClientExpiry&)> on_client_expired =
      [](ReplicaIndex, Epoch, const ClientExpiry&) {};
};

// Runs its commands one after another on a thread of its own, the preparing thread. When the epoch
// fails, whatever was going on, all that it held is given back there at once, and what is left
// until Release says why. Thread-safe.
class HeldEpoch {
 public:
  struct Options {
    EpochContext::Options context;
    std::string request_id;  // of the call that assigned it
    EpochListener listener;
    // On the preparing thread, when all is given back and before Release is answered.
    std::function<void()> on_released;
  };

  // `assignment` has no callbacks yet. Errors of EpochContext::Create.
  static absl::StatusOr<std::unique_ptr<HeldEpoch>> Create(Options options,
                                                           EpochContext::Assignment assignment);
  // Only after Release was submitted; waits for the preparing thread.
  ~HeldEpoch();
  HeldEpoch(const HeldEpoch&) = delete;
  HeldEpoch& operator=(const HeldEpoch&) = delete;

  // OK when that call made this assignment. FAILED_PRECONDITION, INVALID_ARGUMENT.
  absl::Status CheckSameAssignment(const std::string& request_id, const Topology& topology,
                                   GlobalRank rank) const;

  // Starts the command, or joins the one with the same request id. A refusal is told to the
  // watcher as well, and leaves all as it was: FAILED_PRECONDITION (WRONG_STATE), INVALID_ARGUMENT
  // (the request id was another command's). Release is refused in no state.
  void Submit(EpochCommand command, const EpochCall& call, absl::Duration timeout,
              EpochWatcher watcher) ABSL_LOCKS_EXCLUDED(mu_);
  // For the epoch that is to follow it: see EpochContext::BeginHandover.
  absl::StatusOr<std::shared_ptr<Handover>> BeginHandover() ABSL_LOCKS_EXCLUDED(mu_);

  // Makes it FAILED, unless it has failed or is given back already.
  void Abort(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // Null unless it serves and is led from here.
  std::shared_ptr<const ServingEpoch> serving() const ABSL_LOCKS_EXCLUDED(mu_);
  EpochStatus Status() const ABSL_LOCKS_EXCLUDED(mu_);
  // Why it never came to serve, where it was to follow no other and would fail again: for any
  // reason but a rank that was lost, or that it is not wanted any more. OK otherwise.
  absl::Status WhyNotFormed() const ABSL_LOCKS_EXCLUDED(mu_);
  const Topology& topology() const { return topology_; }
  GlobalRank rank() const { return rank_; }

 private:
  HeldEpoch(Options options, const EpochContext::Assignment& assignment);

  // The operation that a call joins; null when it is a new one.
  absl::StatusOr<std::shared_ptr<EpochOperation>> Find(EpochCommand command,
                                                       const std::string& request_id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Lets the watcher watch what it finds or begins, from the beginning where it begins.
  absl::Status FindOrBegin(EpochCommand command, const EpochCall& call, absl::Duration timeout,
                           EpochWatcher& watcher) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status CheckAllowed(EpochCommand command) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  EpochStatus StatusLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // From the context, on its threads.
  void OnProgress(const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_);
  void OnFailed() ABSL_LOCKS_EXCLUDED(mu_);
  void BeginServing() ABSL_LOCKS_EXCLUDED(mu_);
  void OnTakenOver() ABSL_LOCKS_EXCLUDED(mu_);
  void OnPassedOn() ABSL_LOCKS_EXCLUDED(mu_);
  void EndServing() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What whoever still waits is told when the epoch is released.
  absl::Status GivenUp() const;

  // The preparing thread.
  void Prepare() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<EpochOutcome> Perform(const EpochOperation& operation);
  absl::Status Capture(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Takeover> Activate(const EpochOperation& operation) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Drain(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  void GiveBack() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;
  const Topology topology_;
  const GlobalRank rank_;
  const bool follows_;  // another epoch, from which it takes over

  // The preparing thread only.
  std::unique_ptr<EpochContext> context_;  // null once given back
  EpochContext::Captured captured_;        // read by the epoch's own once that has taken over

  absl::Notification unpinned_;  // nobody but the preparing thread uses the context any more

  mutable absl::Mutex mu_;
  std::shared_ptr<EpochContext> pin_ ABSL_GUARDED_BY(mu_);  // null once it is being given back
  std::shared_ptr<const ServingEpoch> serving_ ABSL_GUARDED_BY(mu_);
  bool active_ ABSL_GUARDED_BY(mu_) = false;
  bool was_active_ ABSL_GUARDED_BY(mu_) = false;
  bool failed_ ABSL_GUARDED_BY(mu_) = false;
  bool taken_over_ ABSL_GUARDED_BY(mu_) = false;   // just now
  std::vector<int> buckets_ ABSL_GUARDED_BY(mu_);  // of captured_, for others to read
  int block_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<FusionReport> fusion_ ABSL_GUARDED_BY(mu_);
  EpochStatus last_ ABSL_GUARDED_BY(mu_);  // when there is no pin
  std::map<EpochCommand, std::shared_ptr<EpochOperation>> operations_
      ABSL_GUARDED_BY(mu_);                                       // the newest of each command
  std::shared_ptr<EpochOperation> running_ ABSL_GUARDED_BY(mu_);  // not the release
  std::shared_ptr<EpochOperation> release_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_HELD_EPOCH_H_
