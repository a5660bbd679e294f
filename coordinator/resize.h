// One replica's change of shape, as it is told to the world.
#ifndef MUSTER_COORDINATOR_RESIZE_H_
#define MUSTER_COORDINATOR_RESIZE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/takeover.h"
#include "base/topology.h"
#include "coordinator/formation.h"

namespace muster {

// Mirrors muster.v1.ResizeStage.
enum class ResizeStage {
  kWaiting = 1,
  kPreparing = 2,
  kActivating = 3,
  kReleasing = 4,
  kDone = 5,
  kRolledBack = 6,
  kFailed = 7,
};

// Mirrors muster.v1.ReplicaResize.
struct ReplicaResize {
  ReplicaIndex replica;
  ResizeStage stage = ResizeStage::kWaiting;
  Epoch from_epoch;
  Epoch to_epoch;
  ParallelConfig from;
  ParallelConfig to;
  std::string note;                 // what changes beside the sizes, once it is done
  std::vector<RankProgress> ranks;  // of the new epoch, while it is prepared and activated
  absl::Duration prepare_time;
  Takeover takeover;     // once RELEASING or DONE
  absl::Status failure;  // why ROLLED_BACK or FAILED
};

// What a replica is to do. `plan.predecessor` is the topology that serves.
struct ResizeOrder {
  FormationPlan plan;
  std::string operation_id;
  absl::Duration timeout;  // until it serves
  std::string note;        // as of ReplicaResize
};

inline bool HasEnded(ResizeStage stage) {
  return stage == ResizeStage::kDone || stage == ResizeStage::kRolledBack ||
         stage == ResizeStage::kFailed;
}

// "cp 2 to 4", "tp 1 to 2, cp 4 to 2", "the same sizes".
std::string DescribeSizes(const ParallelConfig& from, const ParallelConfig& to);
// The same with what changes beside them: "worker w1 drained, cp 2 to 1", "buckets 32 16 to 8 1".
std::string DescribeChange(const ParallelConfig& from, const ParallelConfig& to,
                           const std::string& note);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_RESIZE_H_
