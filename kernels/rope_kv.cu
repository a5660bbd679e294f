#include <algorithm>
#include <cmath>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/rope_kv.h"

namespace muster {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxLanes = 32;

// What a thread holds of a head at a time: N elements of each half, and the angles between them.
template <int N>
struct Piece {
  float low[N] = {};
  float high[N] = {};
  float cos[N];
  float sin[N];

  __device__ float SquareSum() const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) sum += low[i] * low[i] + high[i] * high[i];
    return sum;
  }
  __device__ void Weigh(float scale, const float* low_weight, const float* high_weight) {
    float weight[N];
    LoadFloats(low_weight, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) low[i] = low[i] * scale * weight[i];
    LoadFloats(high_weight, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) high[i] = high[i] * scale * weight[i];
  }
  __device__ void Rotate() {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float x = low[i];
      const float y = high[i];
      low[i] = x * cos[i] - y * sin[i];
      high[i] = y * cos[i] + x * sin[i];
    }
  }
};

// One head of one row of qkv: the work of blockDim.x threads, a power of two of at most kMaxLanes.
// Lane l takes elements [l * N, l * N + N) of each half, then those blockDim.x * N further.
template <int N, typename T>
class Head {
 public:
  // `norm` may be null.
  __device__ Head(const RopeKvParams& params, int64_t row, int number, int32_t position,
                  const float* norm)
      : half_(params.layout.head_dim / 2),
        low_(static_cast<T*>(params.qkv) + row * params.row_stride +
             int64_t{number} * params.layout.head_dim),
        cos_(params.cos + int64_t{position} * half_),
        sin_(params.sin + int64_t{position} * half_),
        norm_(norm),
        eps_(params.norm_eps) {}

  __device__ int begin() const { return static_cast<int>(threadIdx.x) * N; }
  __device__ int end() const { return half_; }
  __device__ int step() const { return static_cast<int>(blockDim.x) * N; }

  __device__ void Load(int i, bool with_angles, Piece<N>& piece) const {
    LoadFloats(low_ + i, piece.low);
    LoadFloats(low_ + half_ + i, piece.high);
    if (!with_angles) return;
    LoadFloats(cos_ + i, piece.cos);
    LoadFloats(sin_ + i, piece.sin);
  }
  // What the norm multiplies every element with, beside the weights: in all lanes. `first` is the
  // piece at begin(), zeros if there is none.
  __device__ float Scale(const Piece<N>& first) const {
    if (norm_ == nullptr) return 1;
    float sum = first.SquareSum();
    for (int i = begin() + step(); i < end(); i += step()) {
      Piece<N> piece;
      Load(i, false, piece);
      sum += piece.SquareSum();
    }
    const unsigned first_lane = threadIdx.y * blockDim.x % 32;
    const unsigned lanes = (0xFFFFFFFFu >> (32 - blockDim.x)) << first_lane;
    for (unsigned distance = blockDim.x / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(lanes, sum, static_cast<int>(distance));
    }
    return 1.0f / sqrtf(sum / static_cast<float>(2 * half_) + eps_);
  }
  // Leaves in `piece` what was stored.
  __device__ void RotateInPlace(int i, float scale, Piece<N>& piece) const {
    if (norm_ != nullptr) piece.Weigh(scale, norm_ + i, norm_ + half_ + i);
    piece.Rotate();
    StoreFloats(piece.low, low_ + i);
    StoreFloats(piece.high, low_ + half_ + i);
    RoundFloats<T>(piece.low);
    RoundFloats<T>(piece.high);
  }

 private:
  int half_;
  T* low_;
  const float* cos_;
  const float* sin_;
  const float* norm_;
  float eps_;
};

// The [head_dim] slot of a row in the cache for head `head` of qkv, a KV head; null where this rank
// has none.
__device__ std::byte* CacheSlot(const RopeKvParams& params, const KvDescriptor& kv, int head,
                                int32_t sequence, int32_t position) {
  const KvLayout& layout = params.layout;
  const int32_t block_number = position / layout.block_size;
  if (block_number % params.ownership.size != params.ownership.rank) return nullptr;
  std::byte* block = KvBlock(kv, layout, sequence, block_number / params.ownership.size);
  if (block == nullptr) return nullptr;
  const int kv_head = head - params.heads;
  const bool is_key = kv_head < layout.kv_heads;
  const int64_t page = KvPageOffset(layout, params.layer, is_key ? KvPart::kKey : KvPart::kValue,
                                    is_key ? kv_head : kv_head - layout.kv_heads);
  const int64_t slot = int64_t{position - block_number * layout.block_size} * layout.head_dim;
  return block + page + slot * KvElementBytes(layout);
}

template <int N, typename T>
__device__ void StoreAnywhere(const float (&x)[N], T* to) {
  if (IsVectorAligned(to)) {
    StoreFloats(x, to);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = CudaElement<T>::FromFloat(x[i]);
  }
}

// The arena's address is known at run time only, and with it its alignment.
template <int N>
__device__ void StoreToCache(const float (&x)[N], DType dtype, std::byte* slot, int i) {
  switch (dtype) {
    case DType::kBFloat16:
      return StoreAnywhere(x, reinterpret_cast<__nv_bfloat16*>(slot) + i);
    case DType::kFloat16:
      return StoreAnywhere(x, reinterpret_cast<__half*>(slot) + i);
    case DType::kFloat32:
      return StoreAnywhere(x, reinterpret_cast<float*>(slot) + i);
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    RopeKvKernel(const __grid_constant__ RopeKvParams params) {
  const int64_t row = blockIdx.x;
  const int number = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  const int keys_end = params.heads + params.layout.kv_heads;
  if (number >= keys_end + params.layout.kv_heads) return;
  const int32_t sequence = params.row_sequences[row];
  const int32_t position = params.positions[row];
  const KvDescriptor kv = *params.kv;
  if (sequence < 0) return;
  const bool is_query = number < params.heads;
  const bool is_value = number >= keys_end;
  const float* norm = is_value ? nullptr : is_query ? params.q_norm : params.k_norm;
  const Head<N, T> head(params, row, number, position, norm);
  // Whatever is to be read is asked for before anything is waited for.
  Piece<N> piece;
  if (head.begin() < head.end()) head.Load(head.begin(), !is_value, piece);
  std::byte* slot = is_query ? nullptr : CacheSlot(params, kv, number, sequence, position);
  const float scale = head.Scale(piece);
  for (int i = head.begin(); i < head.end(); i += head.step()) {
    if (i != head.begin()) head.Load(i, !is_value, piece);
    if (!is_value) head.RotateInPlace(i, scale, piece);
    if (slot == nullptr) continue;
    StoreToCache(piece.low, params.layout.dtype, slot, i);
    StoreToCache(piece.high, params.layout.dtype, slot, head.end() + i);
  }
}

// Of all but the arena.
bool IsAligned(const RopeKvParams& params) {
  return params.layout.head_dim / 2 % kVectorElements == 0 &&
         params.row_stride % kVectorElements == 0 && IsVectorAligned(params.qkv) &&
         IsVectorAligned(params.cos) && IsVectorAligned(params.sin) &&
         IsVectorAligned(params.q_norm) && IsVectorAligned(params.k_norm);
}

// Of a head whose halves are `pieces` pieces.
unsigned LanesFor(int pieces) {
  unsigned lanes = 1;
  while (lanes < kMaxLanes && static_cast<int>(lanes) < pieces) lanes *= 2;
  return lanes;
}

}  // namespace

CudaLaunch RopeKvCuda(const RopeKvParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0) return {};
  const unsigned heads = static_cast<unsigned>(params.heads + 2 * params.layout.kv_heads);
  return WithVectorElements(IsAligned(params), [&](auto elements) {
    return WithElementType(params.activation, [&](auto element) {
      constexpr int kElements = decltype(elements)::value;
      const unsigned lanes = LanesFor(params.layout.head_dim / 2 / kElements);
      const dim3 block(lanes, std::min(kThreads / lanes, heads));
      const dim3 grid(static_cast<unsigned>(rows), (heads + block.y - 1) / block.y);
      return Launch<RopeKvKernel<kElements, decltype(element)>>(
          {.gridDim = grid, .blockDim = block, .stream = stream}, params);
    });
  });
}

}  // namespace muster
