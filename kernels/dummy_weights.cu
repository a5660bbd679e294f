#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/dummy_weights-inl.h"
#include "kernels/dummy_weights.h"

namespace muster {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 20;

template <typename T>
__device__ T Rounded(float value) {
  return value;
}
template <>
__device__ __nv_bfloat16 Rounded(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __half Rounded(float value) {
  return __float2half_rn(value);
}

template <typename T>
__device__ T Element(const DummyTensor& tensor, uint32_t sum) {
  const int centred = static_cast<int>(sum) - kDummyLargestSum / 2;
  return Rounded<T>(__fadd_rn(tensor.mean, __fmul_rn(static_cast<float>(centred), tensor.step)));
}

// A block per row, a thread per pair of elements that share a hash.
template <typename T>
__global__ void FillRows(DummyWeightsParams params, int64_t rows) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t first = params.first + row * params.row_stride;
    const int64_t end = first + params.columns;
    T* const out = static_cast<T*>(params.out) + row * params.columns;
    for (int64_t pair = first / 2 + threadIdx.x; 2 * pair < end; pair += kThreads) {
      const uint64_t sums = DummySums(params.tensor.key, static_cast<uint64_t>(pair));
      const int64_t at = 2 * pair - first;
      if (at >= 0) out[at] = Element<T>(params.tensor, static_cast<uint32_t>(sums));
      if (at + 1 < params.columns) {
        out[at + 1] = Element<T>(params.tensor, static_cast<uint32_t>(sums >> 32));
      }
    }
  }
}

template <typename T>
CudaLaunch Fill(const DummyWeightsParams& params, int64_t rows, CudaStream stream) {
  const int blocks = static_cast<int>(std::min(rows, kMaxBlocks));
  return Launch<FillRows<T>>({.gridDim = blocks, .blockDim = kThreads, .stream = stream}, params,
                             rows);
}

}  // namespace

CudaLaunch DummyWeightsCuda(const DummyWeightsParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0 || params.columns == 0) return {};
  switch (params.dtype) {
    case DType::kFloat32:
      break;
    case DType::kBFloat16:
      return Fill<__nv_bfloat16>(params, rows, stream);
    case DType::kFloat16:
      return Fill<__half>(params, rows, stream);
  }
  return Fill<float>(params, rows, stream);
}

}  // namespace muster
