#include "kernels/convert.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"

namespace muster {
namespace {

constexpr int kThreads = 256;

// The last thread that has any takes what is left of a vector one by one.
template <int N, typename From, typename To>
__global__ void __launch_bounds__(kThreads) ConvertKernel(const From* from, To* to, int64_t count) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (first + N <= count) {
    CopyElements<N>(from + first, to + first);
    return;
  }
  for (int64_t i = first; i < count; ++i) CopyElements<1>(from + i, to + i);
}

}  // namespace

CudaLaunch ConvertCuda(const ElementConversion& params, int64_t count, CudaStream stream) {
  if (count == 0) return {};
  const bool aligned = IsVectorAligned(params.from) && IsVectorAligned(params.to);
  return WithVectorElements(aligned, [&](auto elements) {
    return WithElementType(params.from_dtype, [&](auto from) {
      return WithElementType(params.to_dtype, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        constexpr int kElements = decltype(elements)::value;
        const dim3 grid = RowGrid(1, count, kElements, kThreads);
        return Launch<ConvertKernel<kElements, From, To>>(
            {.gridDim = grid.y, .blockDim = kThreads, .stream = stream},
            static_cast<const From*>(params.from), static_cast<To*>(params.to), count);
      });
    });
  });
}

}  // namespace muster
