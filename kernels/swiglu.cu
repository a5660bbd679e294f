#include <cmath>
#include <type_traits>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/swiglu.h"

namespace muster {
namespace {

constexpr int kThreads = 128;

// Where the result is rounded to 16 bits, the fast exponential and quotient are exact enough and
// keep the kernel at the speed of memory.
template <typename T>
__device__ float SwiGluOf(float gate, float up) {
  if constexpr (std::is_same_v<T, float>) {
    return gate / (1.0f + expf(-gate)) * up;
  } else {
    return __fdividef(gate, 1.0f + __expf(-gate)) * up;
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads) SwiGluKernel(SwiGluParams params) {
  const int64_t row = blockIdx.x;
  const int64_t column = RowGridColumn<N>();
  if (column >= params.width) return;
  const T* from = static_cast<const T*>(params.gate_up) + row * params.row_stride + column;
  float gate[N];
  float up[N];
  LoadFloats(from, gate);
  LoadFloats(from + params.width, up);
#pragma unroll
  for (int i = 0; i < N; ++i) gate[i] = SwiGluOf<T>(gate[i], up[i]);
  StoreFloats(gate, static_cast<T*>(params.out) + row * params.out_row_stride + column);
}

bool IsAligned(const SwiGluParams& params) {
  return params.width % kVectorElements == 0 && params.row_stride % kVectorElements == 0 &&
         params.out_row_stride % kVectorElements == 0 && IsVectorAligned(params.gate_up) &&
         IsVectorAligned(params.out);
}

}  // namespace

CudaLaunch SwiGluCuda(const SwiGluParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0) return {};
  return WithVectorElements(IsAligned(params), [&](auto elements) {
    return WithElementType(params.activation, [&](auto element) {
      constexpr int kElements = decltype(elements)::value;
      const dim3 grid = RowGrid(rows, params.width, kElements, kThreads);
      return Launch<SwiGluKernel<kElements, decltype(element)>>(
          {.gridDim = grid, .blockDim = kThreads, .stream = stream}, params);
    });
  });
}

}  // namespace muster
