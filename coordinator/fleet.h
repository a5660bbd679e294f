// The fleet as operators and schedulers see and change it.
#ifndef MUSTER_COORDINATOR_FLEET_H_
#define MUSTER_COORDINATOR_FLEET_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"
#include "coordinator/change_signal.h"
#include "coordinator/events.h"
#include "coordinator/membership.h"
#include "coordinator/operations.h"
#include "coordinator/placement.h"
#include "coordinator/reconfiguration.h"

namespace muster {

struct FleetTopology {
  std::vector<ReplicaStatus> replicas;
  Term term;
  ParallelConfig config;  // what was asked for
};

// A worker, and the rank that it holds if any.
struct WorkerStatus {
  WorkerInfo info;
  WorkerState state = WorkerState::kEnlisted;
  std::optional<ReplicaIndex> replica;
  std::optional<GlobalRank> rank;
  Epoch epoch;
  EpochReport report;  // of that epoch, the newest
  absl::Duration heartbeat_age;
  bool drained = false;  // gets no rank
};

// Thread-safe.
class Fleet {
 public:
  // All outlive this.
  Fleet(const Clock& clock, const Membership& membership, Reconfiguration& reconfiguration,
        EventLog& events)
      : clock_(clock),
        membership_(membership),
        reconfiguration_(reconfiguration),
        events_(events) {}

  FleetTopology GetTopology() const;
  // True while one of the replicas serves.
  bool Serves() const;
  // Notified after every change of GetTopology().
  ChangeSignal& topology_changes() { return reconfiguration_.changes(); }

  // By worker id, as people order names.
  std::vector<WorkerStatus> ListWorkers() const;

  // What these sizes would look like on the workers that are enlisted now, those with a rank
  // included; those that were drained, or are not like those that serve, excluded. Sizes of 0 are
  // those that were asked for last. Errors: those of muster::PlanTopology.
  absl::StatusOr<Plan> PlanTopology(const ParallelConfig& sizes) const;

  // What the operation would take, from what serves: asks the leaders, and changes nothing. Errors:
  // those of Operations::Start that are about the plan.
  void PlanChanges(const OperationRequest& request, Operations::OnPlanned done) {
    reconfiguration_.PlanChanges(request, std::move(done));
  }
  // Those of class Operations.
  void StartOperation(const OperationRequest& request, Operations::OnStarted done) {
    reconfiguration_.StartOperation(request, std::move(done));
  }
  absl::StatusOr<Operation> CancelOperation(const std::string& id) {
    return reconfiguration_.CancelOperation(id);
  }
  std::vector<Operation> ListOperations() const { return reconfiguration_.ListOperations(); }
  std::optional<Operation> FindOperation(const std::string& id) const {
    return reconfiguration_.FindOperation(id);
  }
  // Notified when an operation enters a stage or ends, and now and then as it gets on.
  ChangeSignal& operation_changes() { return reconfiguration_.operation_changes(); }

  EventLog& events() { return events_; }

 private:
  const Clock& clock_;
  const Membership& membership_;
  Reconfiguration& reconfiguration_;
  EventLog& events_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_FLEET_H_
