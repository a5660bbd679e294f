// Brings the fleet to the sizes that it was asked for: plans replicas when workers come, and forms
// them again when workers go, and changes their shape while they serve.
#ifndef MUSTER_COORDINATOR_RECONFIGURATION_H_
#define MUSTER_COORDINATOR_RECONFIGURATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"
#include "coordinator/adoption.h"
#include "coordinator/change_signal.h"
#include "coordinator/departures.h"
#include "coordinator/membership.h"
#include "coordinator/operations.h"
#include "coordinator/placement.h"
#include "coordinator/replica.h"

namespace muster {

// Thread-safe. Replicas form and fail independently. All replicas that wait are planned together as
// soon as there are workers for all of them; when no worker has come for `settle`, as many as there
// are workers for.
//
// A coordinator that comes after another one takes a term above any that workers have seen. What
// they serve it adopts once all ranks of it have enlisted; what lacks a rank for `adopt_timeout`,
// and all else that they hold, is given back, and new epochs are numbered above it.
//
// With `replica_per_domain` there are as many replicas as domains that can hold one: a domain gets
// one when its free workers suffice, and one whose last rank is gone is taken out of the fleet, but
// for the only one.
class Reconfiguration : public MembershipListener, private OperationHost, private DepartureHost {
 public:
  struct Options {
    ParallelConfig config;
    bool replica_per_domain = false;      // instead of config.replicas
    std::optional<CpRange> resize_range;  // the default of `config` when there is none
    Term term = Term(1);                  // the lowest that it takes
    absl::Duration settle = absl::Seconds(1);
    absl::Duration adopt_timeout = absl::Seconds(5);
    Replica::Options replica;
  };
  // All outlive this. No callback of `client` may come after this is destroyed.
  Reconfiguration(const Options& options, const Clock& clock, Membership& membership,
                  RendezvousBoard& board, EventLog& events, WorkerClient& client);
  ~Reconfiguration() override;

  void OnEnlisted(const WorkerInfo& worker) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnLost(const WorkerInfo& worker, const absl::Status& reason) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnClientExpired(const WorkerInfo& worker, const ExpiryReport& expiry) override;
  void OnLeaving(const WorkerInfo& worker, absl::Duration time_left) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  const Options& options() const { return options_; }
  // Of calls made from now on.
  Term term() const ABSL_LOCKS_EXCLUDED(mu_);
  // The sizes that were asked for last, or adopted.
  ParallelConfig config() const ABSL_LOCKS_EXCLUDED(mu_);
  // By replica.
  std::vector<ReplicaStatus> Snapshot() const ABSL_LOCKS_EXCLUDED(mu_);
  // The epoch that the replica's next topology gets; for one that is not configured, 1.
  Epoch NextEpoch(ReplicaIndex replica) const ABSL_LOCKS_EXCLUDED(mu_);
  // Notified after every change of Snapshot(), with none of this object's locks held.
  ChangeSignal& changes() { return changes_; }

  // Those of class Operations. A drained worker gets no rank until its process is started again.
  void StartOperation(const OperationRequest& request, Operations::OnStarted done)
      ABSL_LOCKS_EXCLUDED(mu_);
  void PlanChanges(const OperationRequest& request, Operations::OnPlanned done)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Operation> CancelOperation(const std::string& id) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Operation> ListOperations() const ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<Operation> FindOperation(const std::string& id) const ABSL_LOCKS_EXCLUDED(mu_);
  bool IsDrained(const std::string& worker_id) const ABSL_LOCKS_EXCLUDED(mu_);
  // What workers must be like to serve beside those that do; none when no replica serves.
  std::optional<muster::Pattern> Pattern() ABSL_LOCKS_EXCLUDED(mu_);
  // Notified when an operation enters a stage or ends, and at the next tick after it got on
  // otherwise.
  ChangeSignal& operation_changes() { return operation_changes_; }

 private:
  // Runs `fn` under mu_, then plans, then tells of changes.
  void Deliver(const std::function<void()>& fn) ABSL_LOCKS_EXCLUDED(mu_);

  std::vector<Replica*> Replicas() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<Candidate> Standbys() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<Candidate> FindMember(const std::string& worker_id) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Epoch PeekEpoch(ReplicaIndex replica) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Epoch TakeEpoch(ReplicaIndex replica) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t ReserveBytes(const ParallelConfig& config) override;
  void SetDrained(const Candidate& worker) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetShape(const ReplicaShape& shape) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const ReplicaShape& Shape() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return shape_; }
  void RunUnlocked(std::function<void()> fn) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  bool Occupied(const std::string& worker_id) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FitShape(Replica& replica) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetReplicas(int count) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Closing() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !closing_.empty(); }

  // A replica, and what is known of its epochs.
  struct Slot {
    std::unique_ptr<Replica> replica;  // null once it was taken out of the fleet
    Epoch last;                        // highest known
    Epoch own;                         // highest that this coordinator formed or adopted
    Adoption adoption;
  };
  std::vector<const Replica*> AllReplicas() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // How many there are, in reconfiguration_replicas.cc.
  void AddReplica(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeOut(Slot& slot, const absl::Status& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteCount() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FollowDomains(const std::vector<WorkerView>& members) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // For one that an earlier coordinator had.
  void MakeRoomFor(const WorkerInfo& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of the replica's last epoch, whether it waits for workers and none of those is left.
  static bool IsDeserted(const Slot& slot, const std::vector<WorkerView>& members);
  // Workers that any replica that waits may have.
  std::vector<Candidate> WorkersFor(const Replica* replica, const std::vector<WorkerView>& members)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Those of a worker that enlists, in reconfiguration_adoption.cc.
  void NoteTerm(const WorkerInfo& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteEpochs(const WorkerInfo& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteEpochsOf(const WorkerInfo& worker, Slot& slot, const std::vector<HeldEpoch>& held)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<Topology> AdoptableOf(const WorkerInfo& worker, ReplicaIndex replica,
                                    const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static bool Serves(const Slot& slot, const HeldEpoch& held);
  void GiveBack(const HeldEpoch& held) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DecideAdoptions() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<int> BucketsOf(const Topology& topology) const;
  void Adopt(const Topology& topology, Slot& slot, const std::vector<HeldEpoch>& released)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Whether one of `replicas` has the worker, or it holds what may be adopted.
  bool Occupied(const std::string& worker_id, const std::vector<const Replica*>& replicas) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Tells of a worker that is gone, by its own will or not; `reason`, or why it is so that it left.
  absl::Status TakeDeparture(const WorkerInfo& worker, const absl::Status& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EmitLost(const WorkerInfo& worker, const absl::Status& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PlanReplicas() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // True while workers of an earlier coordinator come, so that its standbys, if they come first,
  // are not formed into what its ranks still serve.
  bool AwaitsRanks() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Those without a rank, drained ones included.
  std::vector<Candidate> FreeWorkers(const std::vector<WorkerView>& members) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What workers must be like: as those that serve, or, as long as one of that model is left, as
  // those that served last.
  std::optional<muster::Pattern> WantedPattern(const std::vector<WorkerView>& members)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteServedModel() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of that pattern; without one, the model that all members hold. Errors: those of CommonModel.
  absl::StatusOr<ModelSpec> WantedModel(const std::vector<WorkerView>& members)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether that model can be split so; OK as long as there are no members.
  absl::Status CheckFit(const ParallelConfig& config, const std::vector<WorkerView>& members)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Plans and forms the first of `plannable`, which have one shape, as many as `free` suffices for;
  // the others wait. `free` loses the workers that get a rank.
  void FormReplicas(const std::vector<Replica*>& plannable, std::vector<Candidate>& free)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Form(const std::vector<Replica*>& replicas, std::vector<Candidate>& free)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsDrained(const WorkerInfo& worker) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t TotalVersion() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const Clock& clock_;
  Membership& membership_;
  EventLog& events_;
  WorkerClient& client_;
  const CpRange range_;
  ChangeSignal changes_;
  ChangeSignal operation_changes_;
  const Replica::Ports ports_;

  mutable absl::Mutex mu_;
  Term term_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Incarnation> welcomed_ ABSL_GUARDED_BY(mu_);  // by worker id
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mu_);                      // by replica
  std::vector<std::unique_ptr<Replica>> closing_ ABSL_GUARDED_BY(mu_);
  uint64_t closed_versions_ ABSL_GUARDED_BY(mu_) = 0;  // of replicas that are no more
  Operations operations_ ABSL_GUARDED_BY(mu_);
  Departures departures_ ABSL_GUARDED_BY(mu_);
  ReplicaShape shape_ ABSL_GUARDED_BY(mu_);                           // asked for last
  std::optional<ModelSpec> served_model_ ABSL_GUARDED_BY(mu_);        // by the last that served
  bool adopted_ ABSL_GUARDED_BY(mu_) = false;                         // shape_ is an adopted one
  std::map<std::string, Incarnation> drained_ ABSL_GUARDED_BY(mu_);   // by worker id
  std::vector<std::function<void()>> unlocked_ ABSL_GUARDED_BY(mu_);  // to run once mu_ is free
  uint64_t told_version_ ABSL_GUARDED_BY(mu_) = 0;  // of what operation_changes_ was notified
  absl::Time last_enlisted_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  // When the first worker came that an earlier coordinator had.
  absl::Time succeeded_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

// A member as the planner sees it.
Candidate ToCandidate(const WorkerInfo& worker);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_RECONFIGURATION_H_
