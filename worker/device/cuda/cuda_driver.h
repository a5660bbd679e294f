// What is asked of CUDA before any device is used.
#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_DRIVER_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_DRIVER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/cuda/device_choice.h"

namespace muster {

// Entry points of the CUDA runtime, each returning a cudaError_t, and what was compiled. Tests put
// others in their place.
struct CudaDriver {
  std::function<int(int* version)> driver_version;   // 13000 for 13.0; 0 where there is no driver
  std::function<int(int* version)> runtime_version;  // that this program was built with
  std::function<int(int* count)> count_gpus;
  std::function<int(int ordinal, CudaGpu* gpu)> describe;
  std::vector<std::string> architectures;  // that this program has kernels for: "80", "90a"

  static CudaDriver Real();
};

// By ordinal; never empty. UNAVAILABLE where there is no driver or no GPU, FAILED_PRECONDITION
// where the driver is too old, with the version that is there and the one that is needed, and where
// kernels run on none of the GPUs, as NoKernels.
absl::StatusOr<std::vector<CudaGpu>> ListCudaGpus(const CudaDriver& driver = CudaDriver::Real());

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_DRIVER_H_
