#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/embedding.h"

namespace muster {
namespace {

constexpr int kThreads = 128;

template <int N, typename From, typename To>
__global__ void __launch_bounds__(kThreads) EmbeddingKernel(EmbeddingParams params) {
  const int64_t row = blockIdx.x;
  const int64_t column = RowGridColumn<N>();
  if (column >= params.hidden) return;
  const int64_t id = params.ids[row];
  To* out = static_cast<To*>(params.out) + row * params.hidden + column;
  if (id < params.vocab_begin || id >= params.vocab_end) {
    StoreFloats<N>({}, out);
    return;
  }
  const int64_t first = (id - params.vocab_begin) * params.hidden;
  CopyElements<N>(static_cast<const From*>(params.table) + first + column, out);
}

}  // namespace

CudaLaunch EmbeddingCuda(const EmbeddingParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0) return {};
  const bool aligned = params.hidden % kVectorElements == 0 && IsVectorAligned(params.table) &&
                       IsVectorAligned(params.out);
  return WithVectorElements(aligned, [&](auto elements) {
    return WithElementType(params.dtype, [&](auto from) {
      return WithElementType(params.activation, [&](auto to) {
        constexpr int kElements = decltype(elements)::value;
        const dim3 grid = RowGrid(rows, params.hidden, kElements, kThreads);
        return Launch<EmbeddingKernel<kElements, decltype(from), decltype(to)>>(
            {.gridDim = grid, .blockDim = kThreads, .stream = stream}, params);
      });
    });
  });
}

}  // namespace muster
