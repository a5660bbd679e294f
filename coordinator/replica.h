// One replica's way through its epochs: waiting, forming, serving, changing shape, failed.
#ifndef MUSTER_COORDINATOR_REPLICA_H_
#define MUSTER_COORDINATOR_REPLICA_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/topology.h"
#include "coordinator/events.h"
#include "coordinator/formation.h"
#include "coordinator/membership.h"
#include "coordinator/placement.h"
#include "coordinator/resize.h"

namespace muster {

// Mirrors muster.v1.ReplicaState.
enum class ReplicaState { kWaiting = 1, kForming = 2, kServing = 3, kFailed = 4 };

struct PhaseTime {
  std::string phase;
  absl::Duration duration;
};

struct ReplicaStatus {
  ReplicaIndex replica;
  ReplicaState state = ReplicaState::kWaiting;
  std::optional<Topology> topology;  // the newest that has served, or is to serve first
  std::optional<Topology> next;      // that is prepared beside it
  absl::Status failure;              // why FAILED, or what is waited for
  std::vector<RankLedger> ledgers;   // by rank, once serving
  std::vector<PhaseTime> phases;     // in the order in which they ran
  absl::Time serving_since;
};

// What a replica is formed as.
struct ReplicaShape {
  ParallelConfig config;
  std::vector<int> buckets;  // rows of its graphs; none: the workers' own
  friend bool operator==(const ReplicaShape&, const ReplicaShape&) = default;
};

// Any failure of the current epoch ends it at once for all its ranks: each is told the culprit by a
// notice, every rendezvous of the epoch fails with it, and the ranks that are left give back what
// they hold. After a lost worker the replica then waits for workers, at first for a pause that
// grows when it is lost again and again; after any other failure it stays FAILED until a worker of
// the failed epoch leaves.
//
// While it serves it can be resized: a second epoch is prepared beside the first, whose leader then
// decides alone which of them goes on. Until it has said so, a failure of the second is rolled back
// and the first serves on; one of the first ends both. Not thread-safe: its owner holds one lock
// over every call and over what `deliver` runs.
class Replica : private FormationOwner {
 public:
  using Options = Formation::Options;
  using Ports = Formation::Ports;

  Replica(ReplicaIndex index, const Options& options, const Ports& ports);

  const ReplicaStatus& status() const { return status_; }
  // Grows with every change of status() and resize().
  uint64_t version() const { return version_; }
  // Of the epoch that serves, or is to be formed next.
  const ReplicaShape& shape() const { return shape_; }
  void set_shape(ReplicaShape shape) { shape_ = std::move(shape); }

  // True when a new epoch may be planned for it now.
  bool Plannable() const;
  // True when `worker` has a rank in a running epoch, or has yet to give back what it holds of
  // another.
  bool Occupies(const std::string& worker_id) const;
  // Where that process is: its rank in the newest epoch that has one for it.
  struct Place {
    Epoch epoch;
    GlobalRank rank;
    std::string phase;  // "warmup/exchange", "serving"; empty when that epoch is over
  };
  std::optional<Place> PlaceOf(const std::string& worker_id, Incarnation incarnation) const;

  // True when it runs nothing, and so may take over what is reported.
  bool Adoptable() const;
  // Starts forming. Plannable(); `plan` follows no other topology.
  void Form(FormationPlan plan);
  // Serves what its ranks reported as serving. Adoptable().
  void Adopt(const Topology& topology, std::vector<int> buckets);
  // Records why no epoch could be planned: FAILED for a refusal, WAITING for workers.
  void RefusePlan(const absl::Status& reason);
  void WaitFor(const absl::Status& reason);

  // Starts to change shape. Serving, with no resize under way.
  void Resize(ResizeOrder order);
  // Rolls back what is prepared, for `reason`. FAILED_PRECONDITION once the leader decides.
  absl::Status CancelResize(const absl::Status& reason);
  // The last resize, ended or not; stage kWaiting before the first.
  ReplicaResize resize() const;
  // True while it changes shape, or while ranks give back what they held of an epoch.
  bool Resizing() const { return next_ != nullptr || !retiring_.empty(); }

  // True while it has a second epoch that does not serve yet.
  bool PreparesNext() const { return next_ != nullptr; }
  // True as long as that can be undone, where the worker is a rank of it.
  bool Prepares(const std::string& worker_id) const {
    return next_ != nullptr && resize_.stage == ResizeStage::kPreparing && next_->Has(worker_id);
  }

  // Ends the running epoch in order, for `reason`: its leader takes no requests any more, those in
  // flight are answered within `timeout`, and what is left then is told by an event. The replica
  // is formed again at once. Forming, or serving without a second epoch.
  void End(const absl::Status& reason, absl::Duration timeout);
  // True from then on while it serves.
  bool ending() const { return !ending_.ok(); }

  // Takes it out of the fleet: its ranks give back what they hold, and it is formed no more.
  void Close(const absl::Status& reason);
  // True until then.
  bool Holding() const { return Resizing() || (current_ != nullptr && current_->releasing()); }

  // Ends the running epoch when the worker has a rank in it.
  void OnWorkerLost(const WorkerInfo& worker, const absl::Status& reason);
  // Ends it when a rank made no progress for too long, or reports that its epoch failed.
  void Tick();

 private:
  using FormationPointer = std::shared_ptr<Formation>;

  void OnProgress(const Formation& formation) override;
  void OnPhaseDone(const Formation& formation, FormingPhase phase, absl::Duration took) override;
  void OnAgreed(Formation& formation) override;
  void OnActivated(Formation& formation, const Takeover& takeover) override;
  void OnFailed(Formation& formation, const absl::Status& reason) override;
  void OnDrained(Formation& formation, const absl::StatusOr<int>& sequences) override;
  void OnReleased(Formation& formation) override;

  FormationPointer MakeFormation(FormationPlan plan);
  bool IsNext(const Formation& formation) const { return next_.get() == &formation; }
  std::string LostPhaseOf(GlobalRank rank) const;
  void Serve();
  void FailEpoch(const absl::Status& reason);
  // `left` says what had to be given up.
  void EndEpoch(const std::string& left);
  void OnAllReleased();

  // The resize, in replica_resize.cc.
  void BeginTakeover();
  void Switch(const Takeover& takeover);
  void OnNextFailed(const absl::Status& reason);
  void Settle();
  void SettleTakeover(const WorkerView& leader);
  // False when the loss is the current epoch's alone.
  bool TakeLossWhileResizing(const WorkerInfo& worker, const absl::Status& reason);
  void TickResize();
  void RollBack(const absl::Status& reason);
  // Gives up the second epoch as the first one fails.
  void GiveUpNext(const absl::Status& reason);
  void FinishResize();
  void Retire(FormationPointer formation, const absl::Status& why);
  void EnterStage(ResizeStage stage, const std::string& message);
  // Names who is late.
  absl::Status PreparedTooLate() const;
  // "cp 2 to 4", "epoch 3".
  std::string NameOfResize() const;
  std::string DescribeResized() const;

  void SetState(ReplicaState state, const absl::Status& failure);
  void Emit(EventKind kind, std::string message);
  void EmitFailure(EventKind kind, Epoch epoch, const absl::Status& reason);

  const Options options_;
  const Ports ports_;

  ReplicaShape shape_;
  ReplicaStatus status_;
  uint64_t version_ = 1;
  FormationPointer current_;   // of status_.topology
  bool plan_refused_ = false;  // FAILED without an epoch of its own
  bool retry_ = false;         // form again once all is given back
  absl::Status ending_;        // why the epoch that serves is being ended
  int failures_ = 0;           // since it last served; grows the pause
  absl::Time retry_at_ = absl::InfinitePast();

  ReplicaResize resize_;
  std::vector<PhaseTime> next_phases_;      // of next_, as they ran
  std::string operation_id_;                // of resize_
  FormationPointer next_;                   // prepared beside current_
  std::vector<FormationPointer> retiring_;  // have yet to give back
  absl::Time resize_started_;
  absl::Time resize_deadline_;
  // Lost while the leader decides, of the one epoch or the other: what to fail it with if it wins.
  absl::Status current_loss_;
  absl::Status next_loss_;
  // Why the next epoch failed, while it is not known what became of the current one; who will tell.
  absl::Status unsettled_;
  std::string witness_;
  uint64_t witnessed_ = 0;  // number of its report by then
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_REPLICA_H_
