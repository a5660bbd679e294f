// What workers of a coordinator that is gone serve, until it is clear whether it can be taken over.
#ifndef MUSTER_COORDINATOR_ADOPTION_H_
#define MUSTER_COORDINATOR_ADOPTION_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/topology.h"
#include "coordinator/membership.h"

namespace muster {

// An epoch that a worker holds from an earlier lease.
struct HeldEpoch {
  WorkerInfo worker;
  ReplicaIndex replica;
  Epoch epoch;
};

// Of one replica: what its workers report, and what becomes of it. Not thread-safe.
class Adoption {
 public:
  // The newest that is known of a worker.
  using FindWorker = std::function<std::optional<WorkerView>(const std::string& worker_id)>;

  // What became of what was reported.
  struct Verdict {
    std::optional<Topology> adopted;  // serves on all its ranks
    std::vector<HeldEpoch> released;  // all else
  };

  // From now on the replica waits for a verdict on `held`, what one worker holds of it. `serving`
  // are the topologies of those that serve, with the worker in its place.
  void Report(const std::vector<HeldEpoch>& held, const std::vector<Topology>& serving,
              absl::Time now);
  // The process holds nothing any more.
  void Forget(const std::string& worker_id, Incarnation incarnation);

  // Ends the waiting: all that was reported.
  std::vector<HeldEpoch> GiveUp();

  bool waiting() const { return !held_.empty(); }
  // True while the worker holds something that no verdict was reached on.
  bool Holds(const std::string& worker_id) const;

  // A verdict as soon as all ranks of the highest epoch that serves are enlisted and report it as
  // serving; after `timeout` from the first report, of the highest of which that is true, or none.
  std::optional<Verdict> Decide(absl::Time now, absl::Duration timeout, const FindWorker& find);

 private:
  std::map<Epoch, Topology> serving_;
  std::vector<HeldEpoch> held_;
  absl::Time since_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_ADOPTION_H_
