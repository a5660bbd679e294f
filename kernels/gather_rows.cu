#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/gather_rows.h"

namespace muster {
namespace {

constexpr int kThreads = 128;

template <int N, typename T>
__global__ void __launch_bounds__(kThreads) GatherRowsKernel(RowGatherParams params) {
  const int64_t output = blockIdx.x;
  const int64_t column = RowGridColumn<N>();
  if (column >= params.hidden) return;
  const T* row = static_cast<const T*>(params.x) + params.index[output] * params.hidden;
  CopyElements<N>(row + column, static_cast<T*>(params.out) + output * params.hidden + column);
}

}  // namespace

CudaLaunch GatherRowsCuda(const RowGatherParams& params, int64_t outputs, CudaStream stream) {
  if (outputs == 0) return {};
  const bool aligned = params.hidden % kVectorElements == 0 && IsVectorAligned(params.x) &&
                       IsVectorAligned(params.out);
  return WithVectorElements(aligned, [&](auto elements) {
    return WithElementType(params.dtype, [&](auto element) {
      constexpr int kElements = decltype(elements)::value;
      const dim3 grid = RowGrid(outputs, params.hidden, kElements, kThreads);
      return Launch<GatherRowsKernel<kElements, decltype(element)>>(
          {.gridDim = grid, .blockDim = kThreads, .stream = stream}, params);
    });
  });
}

}  // namespace muster
