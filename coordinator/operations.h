// What operators ask of the shape of the fleet: one operation at a time, replica after replica.
#ifndef MUSTER_COORDINATOR_OPERATIONS_H_
#define MUSTER_COORDINATOR_OPERATIONS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/topology.h"
#include "coordinator/cache_survey.h"
#include "coordinator/change_plan.h"
#include "coordinator/replica.h"

namespace muster {

// Mirrors muster.v1.OperationKind.
enum class OperationKind { kScaleContextParallel = 1, kApplyTopology = 2, kDrainWorker = 3 };
// Mirrors muster.v1.OperationState.
enum class OperationState { kRunning = 1, kDone = 2, kRolledBack = 3, kFailed = 4 };

// Sizes of 0 stay as they are.
inline constexpr ParallelConfig kSameSizes{.tp = 0, .cp = 0, .pp = 0, .replicas = 0};
ParallelConfig WithSizes(const ParallelConfig& current, const ParallelConfig& sizes);

struct OperationRequest {
  std::string id;
  OperationKind kind = OperationKind::kScaleContextParallel;
  ParallelConfig sizes = kSameSizes;
  std::vector<int> buckets;                    // none: as they are
  std::vector<std::string> drop;               // "CLIENT/SEQUENCE", or "*" for all
  std::string worker_id;                       // to be drained
  absl::Duration timeout = absl::Minutes(10);  // of each replica's change
  friend bool operator==(const OperationRequest&, const OperationRequest&) = default;
};

// Mirrors muster.v1.Operation.
struct Operation {
  std::string id;
  OperationKind kind = OperationKind::kScaleContextParallel;
  OperationState state = OperationState::kRunning;
  std::string summary;  // "cp 2 to 4"
  std::vector<ReplicaResize> replicas;
  absl::Status failure;
  absl::Time started;
  std::optional<absl::Time> ended;
  bool no_change = false;
};

// The fleet, as operations change it. Called under the owner's lock.
class OperationHost {
 public:
  virtual ~OperationHost() = default;
  virtual std::vector<Replica*> Replicas() = 0;
  // Workers without a rank, those that were drained included.
  virtual std::vector<Candidate> Standbys() = 0;
  virtual std::optional<Candidate> FindMember(const std::string& worker_id) = 0;
  // The epoch that a replica's next topology gets; and makes it taken.
  virtual Epoch PeekEpoch(ReplicaIndex replica) = 0;
  virtual Epoch TakeEpoch(ReplicaIndex replica) = 0;
  // What each rank of these sizes leaves free for the topology that follows.
  virtual uint64_t ReserveBytes(const ParallelConfig& config) = 0;
  // From now on the worker gets no rank until its process is started again.
  virtual void SetDrained(const Candidate& worker) = 0;
  // What was asked for last: all replicas have this shape, or are to be formed in it.
  virtual void SetShape(const ReplicaShape& shape) = 0;
  virtual const ReplicaShape& Shape() = 0;
  // That many replicas are to be: new ones form as there are workers for them, the last ones are
  // taken out of the fleet, and are Closing() until their ranks have given back what they hold.
  virtual void SetReplicas(int count) = 0;
  virtual bool Closing() = 0;
  // Runs `fn` soon, without the lock.
  virtual void RunUnlocked(std::function<void()> fn) = 0;
};

// What workers must be like to serve beside the first replica that serves: of its leader's model.
std::optional<Pattern> PatternOf(OperationHost& host);

// Not thread-safe: its owner holds one lock over every call and over what `deliver` runs.
class Operations {
 public:
  struct Options {
    CpRange range;
    bool replica_per_domain = false;  // their number cannot be asked for
  };
  // Called without the lock: the operation runs, or has ended; or why it never began.
  using OnStarted = std::function<void(const absl::Status&)>;
  using OnPlanned = std::function<void(absl::StatusOr<std::vector<ReplicaChange>>)>;

  // All outlive this.
  Operations(const Options& options, const Formation::Ports& ports, OperationHost& host)
      : options_(options), ports_(ports), host_(host) {}

  // Asks the leaders what their caches hold, plans, and starts the operation. The same id joins the
  // one that it named before. Errors: INVALID_ARGUMENT (REQUEST_ID_REUSED for other arguments),
  // FAILED_PRECONDITION (OPERATION_RUNNING names the running one; WRONG_STATE when no replica
  // serves, or a worker cannot be drained), those of PlanChange, and what a leader answers.
  void Start(const OperationRequest& request, OnStarted done);

  // What the operation would take; nothing for replicas that do not serve, or have that shape. It
  // is refused as the operation would be, but for one that runs.
  void Plan(const OperationRequest& request, OnPlanned done);

  // Rolls the operation back, or what is left of it: a replica whose leader decides already goes
  // on, and those after it are not begun. NOT_FOUND; FAILED_PRECONDITION when nothing can be
  // stopped.
  absl::StatusOr<Operation> Cancel(const std::string& id);

  // The running one and the last kKept that have ended, newest first.
  static constexpr size_t kKept = 16;
  std::vector<Operation> List() const;
  std::optional<Operation> Find(const std::string& id) const;

  // True while one is planned or runs.
  bool busy() const { return planning_.has_value() || running_.has_value(); }

  // Goes on as far as the replicas have got; to be called after every change of one.
  void Advance();
  // Grows with every change that a watcher must see at once.
  uint64_t version() const { return version_; }

 private:
  struct Planning {
    OperationRequest request;
    std::vector<OnStarted> done;
  };
  // One replica's part.
  struct Step {
    Replica* replica = nullptr;
    ReplicaShape shape;
    CacheSummary cache;
    bool started = false;
  };
  struct Record {
    OperationRequest request;
    Operation operation;
  };
  // More replicas, or fewer, once all steps are done.
  struct CountChange {
    int from = 0;
    int to = 0;
    bool begun = false;
    absl::Time deadline;  // until the new ones serve
  };
  // What a plan is made for. The number of replicas is none of it.
  struct Target {
    ParallelConfig sizes = kSameSizes;
    std::vector<int> buckets;
    std::string drained;  // worker id; empty for none
  };

  static bool Serves(const Replica& replica) {
    return replica.status().state == ReplicaState::kServing && !replica.ending();
  }
  static absl::Status WrongState(const std::string& message);

  const Record* FindRecord(const std::string& id) const;
  absl::Status CheckFree() const;
  absl::Status CheckDrain(const std::string& worker_id);
  void StartPlanning(const OperationRequest& request, OnStarted done);
  void FinishPlanning(const std::string& id, absl::StatusOr<CacheSummaries> caches);
  absl::Status Begin(const OperationRequest& request, const CacheSummaries& caches);
  int WantedReplicas(const OperationRequest& request) const;
  void AddStep(const ReplicaChange& change, const CacheSummaries& caches, Record* record);
  void DrainStandby(const OperationRequest& request, OnStarted done);

  // In operations_planning.cc.
  static absl::Status CheckLost(const OperationRequest& request, const ReplicaChange& change);
  // Splits off those of replicas that are to be taken out of the fleet: the last ones.
  CacheSummaries TakeRemoved(int count, CacheSummaries& caches) const;
  static absl::Status CheckRemoved(const OperationRequest& request, int count,
                                   const CacheSummaries& removed);
  // What replicas are formed in from then on.
  ReplicaShape ShapeFor(const OperationRequest& request) const;
  absl::Status CheckCount(const OperationRequest& request) const;
  absl::Status CheckAdded(const OperationRequest& request,
                          const std::vector<Candidate>& pool) const;
  // "worker w1 drained, its rank moved to w3", "buckets 32 16 to 8 1"; empty when neither is so.
  static std::string NoteOf(const Target& target, const std::vector<int>& buckets,
                            const ReplicaChange& change);
  std::vector<Topology> ServingTopologies(const std::string& drained) const;
  // `pool` loses the workers that the change takes, and gets those that it frees.
  absl::StatusOr<ReplicaChange> PlanReplica(Replica& replica, const Target& target,
                                            const CacheSummary& cache, Epoch epoch,
                                            std::vector<Candidate>& pool) const;
  absl::StatusOr<std::vector<ReplicaChange>> PlanAll(const Target& target,
                                                     const CacheSummaries& caches,
                                                     std::vector<Candidate>& pool) const;
  // All of an operation, with every check of it.
  absl::StatusOr<std::vector<ReplicaChange>> PlanOperation(const OperationRequest& request,
                                                           const CacheSummaries& caches) const;
  absl::Status StartStep(Step& step, ReplicaResize& resize);
  absl::Status CancelRunning(const absl::Status& reason);
  void AdvanceCount();
  void UndoCount(const absl::Status& reason);
  void EndOperation(OperationState state, const absl::Status& failure);
  void Keep(Record record);
  void Emit(EventKind kind, const Operation& operation, const std::string& message);

  const Options options_;
  const Formation::Ports& ports_;
  OperationHost& host_;

  uint64_t version_ = 0;
  std::optional<Planning> planning_;
  std::optional<Record> running_;
  std::vector<Step> steps_;  // of the running one
  size_t step_ = 0;
  std::optional<CountChange> count_;  // of the running one
  absl::Status stop_;                 // why it ends after the step that is under way
  std::deque<Record> ended_;          // oldest first
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_OPERATIONS_H_
