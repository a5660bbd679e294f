// How far a rank's device has come in the sequence of its collectives, as its host and peers see
// it.
#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ARRIVAL_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ARRIVAL_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/peer_exchange.h"

namespace muster {

// In host memory that the device writes.
struct NcclArrivals {
  static constexpr uint32_t kKept = 64;

  uint32_t sequence;        // operations begun; written last
  PeerStamp stamps[kKept];  // of operation s in [s % kKept]
};

// Enqueues the beginning of the next operation, stamped with it. `arrivals` as the device sees it.
CudaLaunch NcclArriveCuda(NcclArrivals* arrivals, const PeerStamp& stamp, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ARRIVAL_H_
