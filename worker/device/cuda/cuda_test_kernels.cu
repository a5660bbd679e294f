#include "kernels/cuda_launch.cuh"
#include "worker/device/cuda/cuda_test_kernels.h"

namespace muster::testing {
namespace {

__global__ void AddOne(uint32_t* counter) { *counter += 1; }

__global__ void WaitFor(const volatile uint32_t* go) {
  constexpr long long kCycles = 5'000'000'000;
  const long long start = clock64();
  while (*go == 0 && clock64() - start < kCycles) {
  }
}

}  // namespace

CudaLaunch AddOneCuda(uint32_t* counter, CudaStream stream) {
  return Launch<AddOne>({.gridDim = 1, .blockDim = 1, .stream = stream}, counter);
}

CudaLaunch WaitForCuda(const volatile uint32_t* go, CudaStream stream) {
  return Launch<WaitFor>({.gridDim = 1, .blockDim = 1, .stream = stream}, go);
}

}  // namespace muster::testing
