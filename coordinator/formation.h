// The phases of one topology on all its ranks, from Assign to Release.
#ifndef MUSTER_COORDINATOR_FORMATION_H_
#define MUSTER_COORDINATOR_FORMATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"
#include "coordinator/events.h"
#include "coordinator/membership.h"
#include "coordinator/placement.h"
#include "coordinator/rendezvous.h"
#include "coordinator/worker_client.h"

namespace muster {

// What is to be formed.
struct FormationPlan {
  Topology topology;
  std::optional<Topology> predecessor;  // serves meanwhile, and is followed by `topology`
  std::vector<int> buckets;             // rows of the graphs; none: the workers' own
  uint64_t reserve_bytes = 0;           // left free on each rank
  std::vector<SequenceName> drop;       // that may be lost where they cannot go over
};

// One rank of a formation on its way.
struct RankProgress {
  GlobalRank rank;
  std::string worker_id;
  Progress progress;
};

class Formation;

// Who decides what comes of a formation. Called under its lock; `formation` lives at least until
// the call returns.
class FormationOwner {
 public:
  virtual ~FormationOwner() = default;
  // A rank got on.
  virtual void OnProgress(const Formation& formation) = 0;
  virtual void OnPhaseDone(const Formation& formation, FormingPhase phase, absl::Duration took) = 0;
  // All ranks are captured and hold the same digest: it can be activated.
  virtual void OnAgreed(Formation& formation) = 0;
  virtual void OnActivated(Formation& formation, const Takeover& takeover) = 0;
  // A phase failed, or a rank made no progress for too long; `reason` names the culprit. Nothing
  // goes on by itself: the ranks are to be aborted and released.
  virtual void OnFailed(Formation& formation, const absl::Status& reason) = 0;
  // What Drain gave: the leader's sequences.
  virtual void OnDrained(Formation& formation, const absl::StatusOr<int>& sequences) = 0;
  // Every rank has given back what it held, or is gone.
  virtual void OnReleased(Formation& formation) = 0;
};

// Owned by shared pointers, since calls of workers come back when they like. Not thread-safe: its
// owner holds one lock over every call and over what `deliver` runs.
class Formation : public std::enable_shared_from_this<Formation> {
 public:
  struct Options {
    absl::Duration phase_timeout = absl::Seconds(60);   // longest time without progress
    absl::Duration release_timeout = absl::Seconds(5);  // longest wait for a rank to give back
  };
  // What it acts on; all outlive it, and so does the struct itself the calls under way.
  struct Ports {
    const Clock& clock;
    Membership& membership;
    RendezvousBoard& board;
    EventLog& events;
    WorkerClient& client;
    // Runs a function under the owner's lock, from a callback's thread.
    std::function<void(const std::function<void()>&)> deliver;
    // The coordinator's, which may grow. Under the owner's lock.
    std::function<Term()> term;
  };

  Formation(FormationPlan plan, const Options& options, const Ports& ports, FormationOwner& owner);

  const Topology& topology() const { return plan_.topology; }
  const FormationPlan& plan() const { return plan_; }
  bool releasing() const { return !releasing_.empty(); }
  // That has yet to give back, once Release was called.
  bool Holds(const std::string& worker_id) const { return releasing_.contains(worker_id); }

  // Assign, Load, Warmup and Capture, one after another on all ranks, up to OnAgreed.
  void Start();
  // After OnAgreed. A topology that follows another is activated on its leader alone, which has
  // `takeover_timeout` for it; others on all ranks.
  void Activate(absl::Duration takeover_timeout);
  // Its ranks serve, as they report themselves: before this coordinator came, or by an Activate
  // whose answer was lost.
  void MarkServing();
  // Fails when a rank made no progress in its phase for too long. Activate of a topology that
  // follows another is bounded by its own deadline, and ends by an answer alone.
  void Tick();

  // Tells every rank, and whoever meets in the epoch, once.
  void Abort(const absl::Status& reason);
  // While it serves: the leader takes no requests any more and answers those in flight, up to
  // OnDrained.
  void Drain(absl::Duration timeout);
  // Has all ranks that are left give back what they hold, up to OnReleased, which may come before
  // this returns. `why` it failed, if it did.
  void Release(const absl::Status& why);

  std::optional<GlobalRank> RankOf(const std::string& worker_id, Incarnation incarnation) const;
  // Of any process under that id.
  bool Has(const std::string& worker_id) const;
  // "warmup/exchange", "serving".
  std::string PhaseOf(GlobalRank rank) const;
  std::vector<RankProgress> progress() const;
  // Of the ranks whose call of the current phase is under way.
  std::vector<RankProgress> Unfinished() const;
  std::vector<RankLedger> ledgers() const;
  // `error` with the rank, its worker and its phase named, unless it names its culprits itself.
  absl::Status Blame(GlobalRank rank, const absl::Status& error) const;
  // The first rank that reports the epoch as failed, blamed; OK when none does.
  absl::Status ReportedFailure() const;

 private:
  enum class Stage { kForming, kServing, kOver };
  struct RankRun {
    bool done = false;  // with the current phase
    Progress progress;  // newest reported
    PhaseResult result;
  };

  void StartPhase(FormingPhase phase);
  void StartRank(GlobalRank rank, const PhaseInputs& inputs);
  PhaseInputs InputsOf(FormingPhase phase) const;
  void TakeProgress(GlobalRank rank, const Progress& progress);
  void TakeResult(FormingPhase phase, GlobalRank rank, absl::StatusOr<PhaseResult> result);
  void FinishPhase();
  absl::Status CheckAgreement() const;
  void Fail(const absl::Status& reason);
  void TakeRelease(const std::string& worker_id);

  bool follows() const { return plan_.predecessor.has_value(); }
  const RankPlacement& PlacementOf(GlobalRank rank) const;
  RankRun& RunOf(GlobalRank rank) { return runs_[static_cast<size_t>(rank.value())]; }
  const RankRun& RunOf(GlobalRank rank) const { return runs_[static_cast<size_t>(rank.value())]; }
  RankTarget TargetOf(GlobalRank rank) const;

  const FormationPlan plan_;
  const Options options_;
  const Ports& ports_;
  FormationOwner& owner_;

  Stage stage_ = Stage::kForming;
  FormingPhase phase_ = FormingPhase::kAssign;
  absl::Time phase_started_;
  absl::Duration takeover_timeout_;
  std::vector<RankRun> runs_;  // by rank
  bool aborted_ = false;
  std::set<std::string> releasing_;  // workers that have yet to give back
};

// "rank 3 (worker w3)".
std::string NamedRank(const RankPlacement& rank);
// "20ms", "less than 1ms".
std::string ReadableTime(absl::Duration duration);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_FORMATION_H_
