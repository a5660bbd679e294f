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
  AddOne<<<1, 1, 0, stream>>>(counter);
  return {cudaGetLastError()};
}

CudaLaunch WaitForCuda(const volatile uint32_t* go, CudaStream stream) {
  WaitFor<<<1, 1, 0, stream>>>(go);
  return {cudaGetLastError()};
}

}  // namespace muster::testing
