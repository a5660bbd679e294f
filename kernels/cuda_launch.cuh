// How .cu files launch kernels, so that LoadCudaKernels() knows them all.
#ifndef MUSTER_KERNELS_CUDA_LAUNCH_CUH_
#define MUSTER_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "kernels/cuda_kernels.h"
#include "kernels/cuda_launch.h"

namespace muster {

template <auto kKernel>
inline const bool kIsRegistered = RegisterCudaKernel(reinterpret_cast<const void*>(kKernel));

// Instead of kKernel<<<...>>>(args...).
template <auto kKernel, typename... Args>
CudaLaunch Launch(const cudaLaunchConfig_t& config, const Args&... args) {
  static_cast<void>(&kIsRegistered<kKernel>);
  const cudaError_t error = cudaLaunchKernelEx(&config, kKernel, args...);
  if (error != cudaSuccess) cudaGetLastError();  // else the next call would be blamed
  return {static_cast<int>(error)};
}

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_LAUNCH_CUH_
