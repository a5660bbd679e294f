// All epochs that this worker holds, and the calls of the coordinator on them.
#ifndef MUSTER_WORKER_ENGINE_WORKER_EPOCHS_H_
#define MUSTER_WORKER_ENGINE_WORKER_EPOCHS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/topology.h"
#include "worker/engine/held_epoch.h"

namespace muster {

// What a worker is to be in an epoch.
struct RankOrder {
  Topology topology;
  GlobalRank rank;
  std::optional<Topology> predecessor;  // to take over from
  std::vector<int> buckets;             // largest first; none: the worker's own
  uint64_t reserve_bytes = 0;           // to leave free for an epoch that follows
};

// Epochs by (replica, epoch), side by side and each with a preparing thread of its own. An epoch
// number is taken once: after Release, or when a newer one was assigned, it never comes back.
// Thread-safe.
class WorkerEpochs {
 public:
  // Epochs held at once at most; what a heartbeat has room for.
  static constexpr size_t kMaxHeld = 64;

  struct Options {
    std::string worker_id;
    Incarnation incarnation;
    EpochContext::Options context;
  };
  // What every epoch is made with; all outlive this.
  struct Parts {
    const ModelSource& model;
    EngineBackend& backend;
    std::function<std::unique_ptr<Rendezvous>(ReplicaIndex, Epoch)> make_rendezvous;
    EpochListener listener;
  };

  WorkerEpochs(Options options, Parts parts);
  // As Close.
  ~WorkerEpochs();

  // Takes a rank. The same call again is OK. INVALID_ARGUMENT (the topology is not of the call's
  // epoch and term, or names another worker at the rank; sizes that the model does not divide by;
  // buckets that are none), FAILED_PRECONDITION (STALE_EPOCH: a lower term than before, an epoch
  // that is not above all of its replica here, a predecessor of which this worker has a rank but
  // which it does not hold; WRONG_STATE: that does not serve), RESOURCE_EXHAUSTED (too many
  // epochs), UNAVAILABLE (closed).
  absl::Status Assign(const EpochCall& call, const RankOrder& order) ABSL_LOCKS_EXCLUDED(mu_);

  // Runs `command` on an epoch, or joins or repeats it: see HeldEpoch::Submit. `timeout` bounds
  // warmup, capture and drain. What is refused is told to the watcher within the call:
  // FAILED_PRECONDITION (STALE_EPOCH: term, or an epoch that is not held; WRONG_STATE),
  // INVALID_ARGUMENT. To release an epoch that is not held succeeds: its number is then taken, so
  // that an assignment that was overtaken comes to nothing.
  void Run(EpochCommand command, const EpochCall& call, absl::Duration timeout,
           EpochWatcher watcher) ABSL_LOCKS_EXCLUDED(mu_);

  // What the coordinator says of an epoch that it gave up; one that is not held is no error.
  void Abort(ReplicaIndex replica, Epoch epoch, const absl::Status& reason)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The worker enlisted with a coordinator of this term: calls of lower ones are refused from now
  // on. What is held stays.
  void NoteTerm(Term term) ABSL_LOCKS_EXCLUDED(mu_);

  // The newest epoch that serves and is led from here. FAILED_PRECONDITION when this worker is a
  // follower (names the leader), else UNAVAILABLE, which passes.
  absl::StatusOr<std::shared_ptr<const ServingEpoch>> Serving() const ABSL_LOCKS_EXCLUDED(mu_);

  // Of each replica the newest that serves, be it led from here or followed.
  std::vector<Topology> ServingTopologies() const ABSL_LOCKS_EXCLUDED(mu_);
  // The highest seen.
  Term term() const ABSL_LOCKS_EXCLUDED(mu_);

  // Grows whenever an epoch gets on: phases, bytes, steps.
  uint64_t progress() const { return progress_->load(); }
  // Of the epochs held, by replica and epoch.
  std::vector<EpochStatus> Statuses() const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<EpochReport> Reports() const;
  // The same, and for a replica whose newest epoch is held no more, that number as ENLISTED: what
  // a coordinator that forgot it must number above. At most kMaxHeld in all.
  std::vector<EpochReport> History() const ABSL_LOCKS_EXCLUDED(mu_);

  // "replica 0 epoch 3: no memory": the epoch that failed before it came to serve, and would again,
  // until the next one is assigned; empty when there is none. See HeldEpoch::WhyNotFormed.
  std::string unformed() const ABSL_LOCKS_EXCLUDED(mu_);

  // Gives all back, each with `reason` where it is still needed, and takes no assignment any more.
  // Every request has then been answered. May be repeated.
  void Close(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Key = std::pair<ReplicaIndex, Epoch>;

  absl::Status CheckPlacement(const EpochCall& call, const Topology& topology,
                              GlobalRank rank) const;
  // Takes a higher term.
  absl::Status CheckTerm(Term term) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckNew(const Key& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The predecessor of an order as this worker has it; none where it has none.
  absl::StatusOr<std::optional<EpochContext::Predecessor>> FindPredecessor(
      const RankOrder& order) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Hold(const EpochCall& call, const RankOrder& order)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Null when a Release finds nothing to give back.
  absl::StatusOr<std::shared_ptr<HeldEpoch>> Find(EpochCommand command, const EpochCall& call)
      ABSL_LOCKS_EXCLUDED(mu_);
  Epoch NewestOf(ReplicaIndex replica) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnReleased(const Key& key) ABSL_LOCKS_EXCLUDED(mu_);
  // Joins the threads of epochs that are given back.
  void Reap() ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::shared_ptr<HeldEpoch>> Held() const ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;
  const std::shared_ptr<std::atomic<uint64_t>> progress_;
  const Parts parts_;

  mutable absl::Mutex mu_;
  Term term_ ABSL_GUARDED_BY(mu_);  // the highest seen
  std::map<Key, std::shared_ptr<HeldEpoch>> held_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<HeldEpoch>> released_ ABSL_GUARDED_BY(mu_);  // to be joined
  std::map<ReplicaIndex, Epoch> newest_ ABSL_GUARDED_BY(mu_);              // taken, held or not
  std::string unformed_ ABSL_GUARDED_BY(mu_);
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_WORKER_EPOCHS_H_
