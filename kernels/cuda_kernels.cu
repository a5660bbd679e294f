#include "kernels/cuda_kernels.h"

#include <cuda_runtime_api.h>

#include <vector>

namespace muster {
namespace {

// Made by the first who asks: static objects of other files do.
std::vector<const void*>& Kernels() {
  static auto& kernels = *new std::vector<const void*>;
  return kernels;
}

}  // namespace

bool RegisterCudaKernel(const void* kernel) {
  Kernels().push_back(kernel);
  return true;
}

size_t CudaKernelCount() { return Kernels().size(); }

CudaLaunch LoadCudaKernels() {
  for (const void* kernel : Kernels()) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess) return {static_cast<int>(error)};
  }
  return {};
}

}  // namespace muster
