// The fleet as operators and schedulers see it. Reads only.
#ifndef MUSTER_COORDINATOR_FLEET_H_
#define MUSTER_COORDINATOR_FLEET_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"
#include "coordinator/change_signal.h"
#include "coordinator/events.h"
#include "coordinator/membership.h"
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
  // Notified after every change of GetTopology().
  ChangeSignal& topology_changes() { return reconfiguration_.changes(); }

  // By worker id, as people order names.
  std::vector<WorkerStatus> ListWorkers() const;

  // What `config` would look like on the workers that are enlisted now, those with a rank included.
  // Errors: those of muster::PlanTopology.
  absl::StatusOr<Plan> PlanTopology(const ParallelConfig& config) const;

  EventLog& events() { return events_; }

 private:
  const Clock& clock_;
  const Membership& membership_;
  Reconfiguration& reconfiguration_;
  EventLog& events_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_FLEET_H_
