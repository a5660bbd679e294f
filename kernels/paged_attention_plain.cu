// Attention in plain float32 arithmetic, for every type and shape: a block for each row and head,
// whose warps take blocks of keys in turn.

#include "kernels/cuda_launch.cuh"
#include "kernels/paged_attention_cuda.cuh"

namespace muster {
namespace {

constexpr int kWarps = 4;
constexpr int kPerLane = kMaxHeadDim / 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

struct PlainShared {
  float out[kWarps][kMaxHeadDim];
  float max[kWarps];
  float sum[kWarps];
};

// Element i of a lane is element i * 32 + lane of the head.
template <typename T>
__device__ void LoadHead(const T* from, int head_dim, float (&to)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = i * 32 + static_cast<int>(threadIdx.x) % 32;
    to[i] = column < head_dim ? CudaElement<T>::ToFloat(from[column]) : 0;
  }
}

__device__ float Dot(const float (&a)[kPerLane], const float (&b)[kPerLane]) {
  float dot = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) dot = fmaf(a[i], b[i], dot);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    dot += __shfl_xor_sync(kAllLanes, dot, distance);
  }
  return dot;
}

// The running softmax of one warp.
struct Partial {
  float max = -INFINITY;
  float sum = 0;
  float out[kPerLane] = {};

  __device__ void Add(float score, const float (&value)[kPerLane]) {
    const float larger = fmaxf(max, score);
    const float decay = expf(max - Shift(larger));
    const float weight = expf(score - Shift(larger));
    max = larger;
    sum = sum * decay + weight;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) out[i] = out[i] * decay + weight * value[i];
  }
};

// The keys of one block that the row attends to.
template <typename Kv>
__device__ void AttendToBlock(const AttentionArgs& args, const std::byte* block, int64_t page,
                              int64_t first, int64_t start, int32_t position,
                              const float (&query)[kPerLane], Partial& partial) {
  const KvLayout& layout = args.params.layout;
  const auto* keys = reinterpret_cast<const Kv*>(block + args.key_offset + page);
  const auto* values = reinterpret_cast<const Kv*>(block + args.value_offset + page);
  const int64_t end = min(int64_t{position} + 1 - first, int64_t{layout.block_size});
  for (int64_t slot = max(start - first, int64_t{0}); slot < end; ++slot) {
    float key[kPerLane];
    float value[kPerLane];
    LoadHead(keys + slot * layout.head_dim, layout.head_dim, key);
    LoadHead(values + slot * layout.head_dim, layout.head_dim, value);
    partial.Add(Dot(query, key) * args.params.scale, value);
  }
}

template <typename T, typename Kv>
__device__ Partial AttendAsWarp(const AttentionArgs& args, int64_t row, int32_t head) {
  const PagedAttentionParams& params = args.params;
  const KvLayout& layout = params.layout;
  Partial partial;
  const int32_t sequence = params.row_sequences[row];
  const int32_t position = params.positions[row];
  const KvDescriptor kv = *params.kv;
  if (sequence < 0 || position < 0 || kv.base == nullptr) return partial;
  float query[kPerLane];
  LoadHead(
      static_cast<const T*>(params.q) + row * params.q_row_stride + int64_t{head} * layout.head_dim,
      layout.head_dim, query);
  const int64_t start = WindowStart(params, position);
  const int64_t page = head / (params.heads / layout.kv_heads) * args.page_bytes;
  const int64_t warp = threadIdx.x / 32;
  const KvOwnership& ownership = params.ownership;
  const int64_t begin =
      max(start / layout.block_size - ownership.rank, int64_t{0}) / ownership.size;
  for (int64_t local = begin + warp; local < kv.max_local_blocks; local += kWarps) {
    const int64_t first = (local * ownership.size + ownership.rank) * layout.block_size;
    if (first > position) break;
    const std::byte* block = KvBlock(kv, layout, sequence, local);
    if (block == nullptr) continue;
    AttendToBlock<Kv>(args, block, page, first, start, position, query, partial);
  }
  return partial;
}

template <typename T>
__device__ void MergeWarps(const AttentionArgs& args, const PlainShared& shared, int64_t row,
                           int32_t head) {
  float max = -INFINITY;
  for (const float other : shared.max) max = fmaxf(max, other);
  float weights[kWarps];
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    weights[warp] = expf(shared.max[warp] - Shift(max));
    sum += weights[warp] * shared.sum[warp];
  }
  if (threadIdx.x == 0) *LseOf(args, row, head) = sum == 0 ? -INFINITY : Shift(max) + logf(sum);
  T* to = OutOf<T>(args, row, head);
  for (int i = static_cast<int>(threadIdx.x); i < args.params.layout.head_dim; i += kWarps * 32) {
    float out = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) out += weights[warp] * shared.out[warp][i];
    to[i] = CudaElement<T>::FromFloat(sum == 0 ? 0 : out / sum);
  }
}

template <typename T, typename Kv>
__global__ void __launch_bounds__(kWarps * 32)
    PlainKernel(const __grid_constant__ AttentionArgs args) {
  __shared__ PlainShared shared;
  const int64_t row = blockIdx.x;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Partial partial = AttendAsWarp<T, Kv>(args, row, head);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) shared.out[warp][i * 32 + lane] = partial.out[i];
  if (lane == 0) {
    shared.max[warp] = partial.max;
    shared.sum[warp] = partial.sum;
  }
  __syncthreads();
  MergeWarps<T>(args, shared, row, head);
}

}  // namespace

CudaLaunch LaunchPlainAttention(const AttentionArgs& args, CudaStream stream) {
  return WithElementType(args.params.activation, [&](auto element) {
    return WithElementType(args.params.layout.dtype, [&](auto kv_element) {
      const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>(args.params.heads));
      return Launch<PlainKernel<decltype(element), decltype(kv_element)>>(
          {.gridDim = grid, .blockDim = kWarps * 32, .stream = stream}, args);
    });
  });
}

}  // namespace muster
