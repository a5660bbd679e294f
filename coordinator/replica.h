// One replica's way through its epochs: waiting, forming phase by phase, serving, failed.
#ifndef MUSTER_COORDINATOR_REPLICA_H_
#define MUSTER_COORDINATOR_REPLICA_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"
#include "coordinator/events.h"
#include "coordinator/membership.h"
#include "coordinator/rendezvous.h"
#include "coordinator/worker_client.h"

namespace muster {

// Mirrors muster.v1.ReplicaState.
enum class ReplicaState { kWaiting = 1, kForming = 2, kServing = 3, kFailed = 4 };

struct PhaseTime {
  std::string phase;
  absl::Duration duration;
};

struct RankLedger {
  GlobalRank rank;
  std::vector<LedgerEntry> entries;
  uint64_t kv_blocks = 0;
  int block_tokens = 0;
};

struct ReplicaStatus {
  ReplicaIndex replica;
  ReplicaState state = ReplicaState::kWaiting;
  std::optional<Topology> topology;  // the newest
  absl::Status failure;              // why FAILED, or what is waited for
  std::vector<RankLedger> ledgers;   // by rank, once serving
  std::vector<PhaseTime> phases;     // in the order in which they ran
  absl::Time serving_since;
};

// Runs one epoch at a time. Any failure ends the epoch at once for all its ranks: each is told the
// culprit by a notice, every rendezvous of the epoch fails with it, and the ranks that are left
// give back what they hold. After a lost worker the replica then waits for workers, at first for a
// pause that grows when it is lost again and again; after any other failure it stays FAILED until a
// worker of the failed epoch leaves. Not thread-safe: its owner holds one lock over every call and
// over what `deliver` runs.
class Replica {
 public:
  struct Options {
    absl::Duration phase_timeout = absl::Seconds(60);   // longest time without progress
    absl::Duration release_timeout = absl::Seconds(5);  // longest wait for a rank to give back
  };
  // What it acts on; all outlive it.
  struct Ports {
    const Clock& clock;
    Membership& membership;
    RendezvousBoard& board;
    EventLog& events;
    WorkerClient& client;
    // Runs a function under the owner's lock, from a callback's thread.
    std::function<void(const std::function<void()>&)> deliver;
  };

  Replica(ReplicaIndex index, const Options& options, const Ports& ports);

  const ReplicaStatus& status() const { return status_; }
  // Grows with every change of status().
  uint64_t version() const { return version_; }

  // True when a new epoch may be planned for it now.
  bool Plannable() const;
  // True when `worker` has a rank in the running epoch, or has yet to give back what it holds of
  // the last one.
  bool Occupies(const std::string& worker_id) const;
  // The rank of that process in the newest topology.
  std::optional<GlobalRank> RankOf(const std::string& worker_id, Incarnation incarnation) const;
  // "warmup/exchange", "serving"; where it was lost when its loss ended the epoch; else empty.
  std::string PhaseOf(GlobalRank rank) const;

  // Starts forming. Plannable().
  void Form(const Topology& topology);
  // Records why no epoch could be planned: FAILED for a refusal, WAITING for workers.
  void RefusePlan(const absl::Status& reason);
  void WaitFor(const absl::Status& reason);

  // Ends the running epoch when the worker has a rank in it.
  void OnWorkerLost(const WorkerInfo& worker, const absl::Status& reason);
  // Ends it when a rank made no progress for too long, or reports that its epoch failed.
  void Tick();

 private:
  struct RankRun {
    bool done = false;  // with the current phase
    std::string phase;  // newest reported
    PhaseResult result;
  };

  void StartPhase(FormingPhase phase);
  void StartRank(FormingPhase phase, GlobalRank rank);
  void OnProgress(Epoch epoch, GlobalRank rank, const Progress& progress);
  void OnPhaseDone(Epoch epoch, FormingPhase phase, GlobalRank rank,
                   absl::StatusOr<PhaseResult> result);
  void FinishPhase();
  absl::Status CheckAgreement() const;
  void Serve();
  // Names the rank, unless `error` names its culprits itself.
  void FailRank(GlobalRank rank, const absl::Status& error);
  void FailStalledRanks();
  void FailReportedRank();
  void FailEpoch(const absl::Status& reason);
  void ReleaseRanks();
  void OnRankReleased(Epoch epoch);
  void OnAllReleased();

  bool IsCurrent(Epoch epoch) const;
  void SetState(ReplicaState state, const absl::Status& failure);
  void Emit(EventKind kind, std::string message);
  const RankPlacement& PlacementOf(GlobalRank rank) const;
  RankRun& RunOf(GlobalRank rank) { return runs_[static_cast<size_t>(rank.value())]; }
  RankTarget TargetOf(GlobalRank rank) const;

  const Options options_;
  const Ports ports_;

  ReplicaStatus status_;
  uint64_t version_ = 1;
  FormingPhase phase_ = FormingPhase::kAssign;
  absl::Time phase_started_;
  std::vector<RankRun> runs_;  // by rank of the running epoch
  int releasing_ = 0;          // ranks that have yet to give back
  bool plan_refused_ = false;  // FAILED without an epoch of its own
  bool retry_ = false;         // form again once all is given back
  int failures_ = 0;           // since it last served; grows the pause
  absl::Time retry_at_ = absl::InfinitePast();
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_REPLICA_H_
