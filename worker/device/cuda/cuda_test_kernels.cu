#include "kernels/cuda_launch.cuh"
#include "worker/device/cuda/cuda_test_kernels.h"

namespace muster::testing {
namespace {

__global__ void AddOne(uint32_t* counter) { *counter += 1; }

// Until *word is at least `wanted`, or some seconds.
__device__ void Await(const volatile uint32_t* word, uint32_t wanted) {
  constexpr long long kCycles = 5'000'000'000;
  const long long start = clock64();
  while (*word < wanted && clock64() - start < kCycles) {
  }
}

__global__ void WaitFor(const volatile uint32_t* go) { Await(go, 1); }

__global__ void HoldThreeQuarters(const volatile uint32_t* go, uint32_t* arrived) {
  atomicAdd(arrived, 1);
  // Where one ended before all are there, the next could take its place.
  Await(arrived, gridDim.x);
  uint32_t multiprocessor;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
  if (multiprocessor % 4 != 0) Await(go, 1);
}

}  // namespace

CudaLaunch AddOneCuda(uint32_t* counter, CudaStream stream) {
  return Launch<AddOne>({.gridDim = 1, .blockDim = 1, .stream = stream}, counter);
}

CudaLaunch WaitForCuda(const volatile uint32_t* go, CudaStream stream) {
  return Launch<WaitFor>({.gridDim = 1, .blockDim = 1, .stream = stream}, go);
}

CudaLaunch HoldThreeQuartersCuda(const volatile uint32_t* go, uint32_t* arrived,
                                 CudaStream stream) {
  constexpr int kMoreThanHalf = 120 << 10;  // of a multiprocessor's shared memory
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(HoldThreeQuarters, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 kMoreThanHalf);
  }
  if (error != cudaSuccess) return {error};
  return Launch<HoldThreeQuarters>({.gridDim = static_cast<unsigned>(multiprocessors),
                                    .blockDim = 1,
                                    .dynamicSmemBytes = kMoreThanHalf,
                                    .stream = stream},
                                   go, arrived);
}

}  // namespace muster::testing
