#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

constexpr int kThreads = 256;

template <int N, typename T, typename Out>
__device__ void ReduceElements(const ReduceRanksParams& params, int64_t first) {
  float sum[N];
  LoadFloats(static_cast<const T*>(params.parts[0]) + first, sum);
  for (int rank = 1; rank < params.world; ++rank) {
    float part[N];
    LoadFloats(static_cast<const T*>(params.parts[rank]) + first, part);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = __fadd_rn(sum[i], part[i]);
  }
  StoreFloats(sum, static_cast<Out*>(params.out) + first);
}

// The last thread that has any takes what is left of a vector one by one.
template <int N, typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    ReduceRanksKernel(const __grid_constant__ ReduceRanksParams params, int64_t elements) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (first + N <= elements) {
    ReduceElements<N, T, Out>(params, first);
    return;
  }
  for (int64_t i = first; i < elements; ++i) ReduceElements<1, T, Out>(params, i);
}

bool IsAligned(const ReduceRanksParams& params) {
  bool aligned = IsVectorAligned(params.out);
  for (int rank = 0; rank < params.world; ++rank) aligned &= IsVectorAligned(params.parts[rank]);
  return aligned;
}

}  // namespace

CudaLaunch ReduceRanksCuda(const ReduceRanksParams& params, int64_t elements, CudaStream stream) {
  if (elements == 0) return {};
  return WithVectorElements(IsAligned(params), [&](auto vector) {
    return WithElementType(params.dtype, [&](auto element) {
      return WithElementType(params.out_dtype, [&](auto out) {
        constexpr int kElements = decltype(vector)::value;
        const dim3 grid = RowGrid(1, elements, kElements, kThreads);
        return Launch<ReduceRanksKernel<kElements, decltype(element), decltype(out)>>(
            {.gridDim = grid.y, .blockDim = kThreads, .stream = stream}, params, elements);
      });
    });
  });
}

}  // namespace muster
