// Work on a GPU for the tests of the device.
#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_TEST_KERNELS_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_TEST_KERNELS_H_

#include <cstdint>

#include "kernels/cuda_launch.h"

namespace muster::testing {

// *counter += 1.
CudaLaunch AddOneCuda(uint32_t* counter, CudaStream stream);
// Ends when *go (host memory) is not 0, or after some seconds.
CudaLaunch WaitForCuda(const volatile uint32_t* go, CudaStream stream);
// The same on three quarters of the multiprocessors, one block each; the others are spread over the
// GPU. *arrived (the GPU's memory) is 0 before, and comes to the number of multiprocessors.
CudaLaunch HoldThreeQuartersCuda(const volatile uint32_t* go, uint32_t* arrived, CudaStream stream);

}  // namespace muster::testing

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_TEST_KERNELS_H_
