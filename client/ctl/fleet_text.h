// What commands say of replicas and workers alike.
#ifndef MUSTER_CLIENT_CTL_FLEET_TEXT_H_
#define MUSTER_CLIENT_CTL_FLEET_TEXT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// "epoch 7   tp=2 cp=2   serving 3 h 12 min"; the sizes that are wanted where none are planned.
std::string ReplicaHeadline(const v1::ReplicaStatus& replica, const v1::ParallelConfig& wanted);

// "SERVING"; of one without a rank "STANDBY", or "DRAINED" where it gets none any more.
std::string WorkerStateName(const v1::WorkerStatus& worker);

// "████░░░░  52 %", the bar `width` columns wide; "-" where there are no blocks.
std::string KvUsed(uint64_t used, uint64_t total, int width);

// Workers by the replica that they serve, in rank order, and the others.
struct WorkerGroups {
  std::map<uint32_t, std::vector<const v1::WorkerStatus*>> by_replica;
  std::vector<const v1::WorkerStatus*> without_rank;
};
// `workers` outlives the result.
WorkerGroups GroupWorkers(const v1::ListWorkersResponse& workers);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FLEET_TEXT_H_
