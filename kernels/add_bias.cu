#include "kernels/add_bias.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"

namespace muster {
namespace {

constexpr int kThreads = 128;

template <int N, typename T>
__global__ void __launch_bounds__(kThreads) AddBiasKernel(AddBiasParams params) {
  const int64_t row = blockIdx.x;
  const int64_t column = RowGridColumn<N>();
  if (column >= params.width) return;
  T* y = static_cast<T*>(params.y) + row * params.row_stride + column;
  float sum[N];
  float bias[N];
  LoadFloats(y, sum);
  LoadFloats(params.bias + column, bias);
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += bias[i];
  StoreFloats(sum, y);
}

bool IsAligned(const AddBiasParams& params) {
  return params.width % kVectorElements == 0 && params.row_stride % kVectorElements == 0 &&
         IsVectorAligned(params.y) && IsVectorAligned(params.bias);
}

}  // namespace

CudaLaunch AddBiasCuda(const AddBiasParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0) return {};
  return WithVectorElements(IsAligned(params), [&](auto elements) {
    return WithElementType(params.dtype, [&](auto element) {
      constexpr int kElements = decltype(elements)::value;
      const dim3 grid = RowGrid(rows, params.width, kElements, kThreads);
      return Launch<AddBiasKernel<kElements, decltype(element)>>(
          {.gridDim = grid, .blockDim = kThreads, .stream = stream}, params);
    });
  });
}

}  // namespace muster
