#include <cmath>

#include "kernels/cp_combine.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_words.cuh"
#include "kernels/peer_exchange.cuh"

namespace muster {
namespace {

constexpr int kThreads = kPeerThreads;
constexpr size_t kMostSharedBytes = size_t{48} << 10;

// How a row is cut into slices, and what a rank sends another of one: its words of the slice, then
// the LSE of all heads that the slice touches.
struct Cut {
  int64_t width;  // of a row, in elements
  int64_t slice;
  int32_t head_dim;
  int32_t most_heads;  // that any slice touches
  int32_t data_words;
  int32_t lse_words;

  __host__ __device__ Cut(int32_t heads, int32_t dim, int world, int word_elements)
      : width(int64_t{heads} * dim), slice(width / world), head_dim(dim) {
    most_heads = static_cast<int32_t>(slice % dim == 0 ? slice / dim : (slice - 2) / dim + 2);
    if (most_heads > heads) most_heads = heads;
    data_words = static_cast<int32_t>((slice + word_elements - 1) / word_elements);
    lse_words = (most_heads + 3) / 4;
  }
  __host__ __device__ int32_t Words() const { return data_words + lse_words; }
  __device__ int32_t FirstHead(int rank) const {
    return static_cast<int32_t>(slice * rank / head_dim);
  }
  __device__ int32_t Heads(int rank) const {
    return static_cast<int32_t>((slice * (rank + 1) - 1) / head_dim) - FirstHead(rank) + 1;
  }
};

// What the ranks' outputs count for, head by head of this rank's slice; in shared memory.
struct Weights {
  float* of;      // [world, most_heads]: LSE at first, then weights; kAbsent where there is no key
  float* totals;  // [most_heads]
};
constexpr float kAbsent = -1.0f;

template <typename T, bool kAligned>
__device__ void PushRow(const CpCombineCudaParams& params, const PeerOperation& op, const Cut& cut,
                        int64_t row) {
  constexpr int kElements = kWordElements<T>;
  for (int i = threadIdx.x; i < op.world() * cut.Words(); i += blockDim.x) {
    const int peer = i / cut.Words(), w = i % cut.Words();
    if (peer == op.rank()) continue;
    uint4 word;
    if (w < cut.data_words) {
      const int64_t column = int64_t{w} * kElements;
      word = LoadWord<kAligned>(
          static_cast<const T*>(params.partial) + row * cut.width + cut.slice * peer + column,
          cut.slice - column);
    } else {
      const int head = (w - cut.data_words) * 4;
      word = LoadWord<false>(params.lse + row * params.heads + cut.FirstHead(peer) + head,
                             cut.Heads(peer) - head);
    }
    StoreRelaxed(op.Outbox(peer) + row * cut.Words() + w, MarkNotEmpty(word));
  }
}

__device__ void ReceiveLse(const CpCombineCudaParams& params, PeerOperation& op, const Cut& cut,
                           int64_t row, const Weights& weights) {
  const int heads = cut.Heads(op.rank());
  for (int i = threadIdx.x; i < op.world() * cut.lse_words; i += blockDim.x) {
    const int source = i / cut.lse_words, w = i % cut.lse_words;
    const uint4 word =
        source == op.rank()
            ? LoadWord<false>(params.lse + row * params.heads + cut.FirstHead(source) + 4 * w,
                              heads - 4 * w)
            : op.AwaitWord(source, op.Inbox(source) + row * cut.Words() + cut.data_words + w);
    float lse[4];
    UnpackWord<float>(word, lse);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (4 * w + j < heads) weights.of[source * cut.most_heads + 4 * w + j] = lse[j];
    }
  }
}

__device__ void WeighHeads(int world, const Cut& cut, int heads, const Weights& weights) {
  for (int head = threadIdx.x; head < heads; head += blockDim.x) {
    float* lse = weights.of + head;
    float most = -INFINITY, total = 0;
    for (int r = 0; r < world; ++r) most = fmaxf(most, lse[r * cut.most_heads]);
    for (int r = 0; r < world; ++r) {
      float& entry = lse[r * cut.most_heads];
      entry = entry == -INFINITY ? kAbsent : expf(entry - most);
      if (entry != kAbsent) total += entry;
    }
    weights.totals[head] = total;
  }
}

template <typename T, bool kAligned, int kRanks>
__device__ void MergeRow(const CpCombineCudaParams& params, PeerOperation& op, const Cut& cut,
                         int64_t row, const Weights& weights) {
  constexpr int kElements = kWordElements<T>;
  const T* own = static_cast<const T*>(params.partial) + row * cut.width + cut.slice * op.rank();
  for (int w = threadIdx.x; w < cut.data_words; w += blockDim.x) {
    const int64_t column = int64_t{w} * kElements, count = cut.slice - column;
    const uint4 word = MarkNotEmpty(LoadWord<kAligned>(own + column, count));
    uint4 words[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) words[r] = word;
    op.AwaitWords(op.Inbox(0) + row * cut.Words() + w, words);
    const int64_t first = cut.slice * op.rank() + column;
    int heads[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int64_t last = cut.slice * (op.rank() + 1) - 1;
      heads[i] = static_cast<int>((first + i < last ? first + i : last) / cut.head_dim) -
                 cut.FirstHead(op.rank());
    }
    float sum[kElements] = {};
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= op.world()) break;
      float values[kElements];
      UnpackWord<T>(words[r], values);
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        const float weight = weights.of[r * cut.most_heads + heads[i]];
        if (weight != kAbsent) sum[i] += weight * values[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const float total = weights.totals[heads[i]];
      sum[i] = total == 0 ? 0 : sum[i] / total;
    }
    StoreWord<kAligned>(PackWord<T>(sum), count,
                        static_cast<T*>(params.out) + row * cut.slice + column);
  }
}

template <typename T, bool kAligned, int kRanks>
__global__ void __launch_bounds__(kThreads, kPeerBlocksPerMultiprocessor)
    CpCombineKernel(const __grid_constant__ CpCombineCudaParams params, int64_t rows) {
  extern __shared__ float shared[];
  PeerOperation op(params.peers, params.stamp);
  const Cut cut(params.heads, params.head_dim, op.world(), kWordElements<T>);
  const Weights weights{shared, shared + op.world() * cut.most_heads};
  if (!op.refused()) {
    op.PushStamp();
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
      PushRow<T, kAligned>(params, op, cut, row);
    }
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
      ReceiveLse(params, op, cut, row, weights);
      __syncthreads();
      WeighHeads(op.world(), cut, cut.Heads(op.rank()), weights);
      __syncthreads();
      MergeRow<T, kAligned, kRanks>(params, op, cut, row, weights);
      __syncthreads();
    }
    op.GlanceAtStamps();
    op.CheckStamps();
  }
  op.Finish();
}

bool IsAligned(const CpCombineCudaParams& params, const Cut& cut) {
  return cut.slice * SizeOf(params.dtype) % 16 == 0 && AreWordsAligned(params.partial, params.out);
}

}  // namespace

int64_t CpCombineBytes(int64_t rows, int32_t heads, int32_t head_dim, DType dtype, int world) {
  const Cut cut(heads, head_dim, world, static_cast<int>(16 / SizeOf(dtype)));
  return rows * cut.Words() * 16;
}

CudaLaunch CpCombineCuda(const CpCombineCudaParams& params, int64_t rows, CudaStream stream) {
  const PeerLayout& layout = params.peers.layout;
  const Cut cut(params.heads, params.head_dim, layout.world,
                static_cast<int>(16 / SizeOf(params.dtype)));
  const size_t shared_bytes = sizeof(float) * cut.most_heads * (layout.world + 1);
  if (rows <= 0 || rows * cut.Words() * 16 > layout.slot_bytes ||
      cut.slice * layout.world != cut.width || shared_bytes > kMostSharedBytes) {
    return {cudaErrorInvalidValue};
  }
  const int wanted =
      cut.data_words > layout.world * cut.lse_words ? cut.data_words : layout.world * cut.lse_words;
  const int threads = wanted >= kThreads ? kThreads : (wanted + 31) / 32 * 32;
  const int64_t most = params.peers.max_blocks;
  const cudaLaunchConfig_t config{.gridDim = static_cast<unsigned>(rows < most ? rows : most),
                                  .blockDim = threads,
                                  .dynamicSmemBytes = shared_bytes,
                                  .stream = stream};
  return WithElementType(params.dtype, [&](auto element) {
    using T = decltype(element);
    if (!IsAligned(params, cut)) {
      return Launch<CpCombineKernel<T, false, kMaxPeers>>(config, params, rows);
    }
    if (layout.world <= 4) return Launch<CpCombineKernel<T, true, 4>>(config, params, rows);
    return Launch<CpCombineKernel<T, true, kMaxPeers>>(config, params, rows);
  });
}

}  // namespace muster
