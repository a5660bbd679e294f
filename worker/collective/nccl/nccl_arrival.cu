#include "kernels/cuda_launch.cuh"
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
  return Launch<ArriveKernel>({.gridDim = 1, .blockDim = 1, .stream = stream}, arrivals, stamp);
}

}  // namespace muster
