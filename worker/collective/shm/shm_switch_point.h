#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_SWITCH_POINT_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_SWITCH_POINT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/collective/shm/shm_peers.h"
#include "worker/device/cpu/thread_pool.h"

namespace muster {

// Collective. Times all-reduces of growing size in one shot and in two, a fixed number of each, and
// returns from how many bytes on two were faster here; all ones when never. Leaves the setting of
// `peers` as it was. Errors as of ShmPeers::Exchange.
absl::StatusOr<uint64_t> MeasureTwoShotBytes(ShmPeers& peers, ThreadPool& pool);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_SWITCH_POINT_H_
