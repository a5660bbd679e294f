// CUDA's error codes as statuses.
#ifndef MUSTER_KERNELS_CUDA_STATUS_H_
#define MUSTER_KERNELS_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda_launch.h"

namespace muster {

// OK, RESOURCE_EXHAUSTED (no memory on the device), UNAVAILABLE (no device, or it is gone), else
// INTERNAL. `what` was being done.
inline absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(what, ": CUDA says ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(text);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorInvalidDevice:
      return absl::UnavailableError(text);
    default:
      return absl::InternalError(text);
  }
}

inline absl::Status CudaStatus(CudaLaunch launch, absl::string_view what) {
  return CudaStatus(static_cast<cudaError_t>(launch.error), what);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_STATUS_H_
