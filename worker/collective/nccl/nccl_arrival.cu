#include <cuda_runtime.h>

#include "worker/collective/nccl/nccl_arrival.h"

namespace muster {
namespace {

__global__ void ArriveKernel(NcclArrivals* arrivals, PeerStamp stamp) {
  volatile uint32_t* const begun = &arrivals->sequence;
  stamp.sequence = *begun + 1;
  arrivals->stamps[stamp.sequence % NcclArrivals::kKept] = stamp;
  __threadfence_system();
  *begun = stamp.sequence;
}

}  // namespace

CudaLaunch NcclArriveCuda(NcclArrivals* arrivals, const PeerStamp& stamp, CudaStream stream) {
  ArriveKernel<<<1, 1, 0, stream>>>(arrivals, stamp);
  return {static_cast<int>(cudaGetLastError())};
}

}  // namespace muster
