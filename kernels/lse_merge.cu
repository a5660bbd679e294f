#include <cmath>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/lse_merge.h"

namespace muster {
namespace {

constexpr int kThreads = 256;

// Weights of the peers for one head of a row, and their sum. Peers without keys have none.
struct Shares {
  float weights[kMaxMergePeers];
  float total;
};
constexpr float kAbsent = -1.0f;

__device__ void WeighHead(const LseMergeParams& params, int64_t row, int64_t head, Shares& shares) {
  float most = -INFINITY;
#pragma unroll
  for (int peer = 0; peer < kMaxMergePeers; ++peer) {
    if (peer >= params.world) break;
    shares.weights[peer] = params.lse[peer][row * params.lse_row_stride + head];
    most = fmaxf(most, shares.weights[peer]);
  }
  shares.total = 0;
#pragma unroll
  for (int peer = 0; peer < kMaxMergePeers; ++peer) {
    if (peer >= params.world) break;
    float& weight = shares.weights[peer];
    weight = weight == -INFINITY ? kAbsent : expf(weight - most);
    if (weight != kAbsent) shares.total += weight;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    LseMergeKernel(const __grid_constant__ LseMergeParams params) {
  const int64_t row = blockIdx.x;
  const int64_t column = params.columns.begin + RowGridColumn<1>();
  if (column >= params.columns.end) return;
  Shares shares;
  WeighHead(params, row, column / params.head_dim, shares);
  const int64_t at = row * params.part_row_stride + column - params.part_column;
  float sum = 0;
#pragma unroll
  for (int peer = 0; peer < kMaxMergePeers; ++peer) {
    if (peer >= params.world) break;
    if (shares.weights[peer] == kAbsent) continue;
    sum += shares.weights[peer] *
           CudaElement<T>::ToFloat(static_cast<const T*>(params.parts[peer])[at]);
  }
  static_cast<T*>(params.out)[row * params.out_row_stride + column - params.columns.begin] =
      CudaElement<T>::FromFloat(shares.total == 0 ? 0 : sum / shares.total);
}

}  // namespace

CudaLaunch LseMergeCuda(const LseMergeParams& params, int64_t rows, CudaStream stream) {
  const int64_t columns = params.columns.end - params.columns.begin;
  if (rows == 0 || columns == 0) return {};
  return WithElementType(params.activation, [&](auto element) {
    const int threads = columns < kThreads ? static_cast<int>((columns + 31) / 32 * 32) : kThreads;
    return Launch<LseMergeKernel<decltype(element)>>(
        {.gridDim = RowGrid(rows, columns, 1, threads), .blockDim = threads, .stream = stream},
        params);
  });
}

}  // namespace muster
