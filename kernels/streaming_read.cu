#include "kernels/cuda_launch.cuh"
#include "kernels/streaming_read.h"

namespace muster {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kLoads = 8;  // of 16 bytes, that a thread has in flight

__global__ void __launch_bounds__(kThreads)
    StreamingReadKernel(const uint4* data, size_t count, uint32_t* seen) {
  const size_t step = size_t{gridDim.x} * kThreads;
  uint32_t bits = 0;
  for (size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += kLoads * step) {
    uint4 words[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      const size_t at = i + load * step;
      words[load] = at < count ? __ldcs(data + at) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (const uint4& word : words) bits ^= word.x ^ word.y ^ word.z ^ word.w;
  }
  // True of few threads in a billion, which the compiler does not know.
  if (bits == 0x5A17C3D9u) *seen = bits;
}

}  // namespace

CudaLaunch StreamingReadCuda(const void* data, size_t bytes, uint32_t* seen, int multiprocessors,
                             CudaStream stream) {
  const int blocks = multiprocessors * kBlocksPerMultiprocessor;
  return Launch<StreamingReadKernel>({.gridDim = blocks, .blockDim = kThreads, .stream = stream},
                                     static_cast<const uint4*>(data), bytes / 16, seen);
}

}  // namespace muster
