#include "kernels/all_reduce_rms_norm.h"
#include "kernels/peer_exchange.cuh"
#include "kernels/rms_norm_row.cuh"

namespace muster {
namespace {

using Params = AllReduceRmsNormCudaParams;

template <typename T>
__device__ const T* Element(const void* array, int64_t index) {
  return static_cast<const T*>(array) + index;
}

template <typename T>
__device__ RowNorm<T> NormOf(const Params& params, int64_t row) {
  const int64_t offset = row * params.hidden;
  T* residual_out = static_cast<T*>(params.residual_out);
  return {.eps = params.eps,
          .hidden = params.hidden,
          .residual_out = residual_out == nullptr ? nullptr : residual_out + offset,
          .norm_out = static_cast<T*>(params.norm_out) + offset};
}

// Of a block at most: a thread that adds up one word of few ranks needs few registers.
constexpr int Threads(int ranks, int words) {
  return ranks <= 4 && words == 1 ? kPeerThreadsOfFewRegisters : kPeerThreads;
}

// ---- One shot

// own[k] is this thread's k-th word of the row.
template <typename T, bool kAligned, int kWords>
__device__ void LoadRow(const Params& params, const RowTeam& team, int64_t row,
                        uint4 (&own)[kWords]) {
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    const int64_t column = int64_t{team.Word(k)} * kWordElements<T>;
    if (column >= params.hidden) break;
    own[k] = LoadWord<kAligned>(Element<T>(params.partial, row * params.hidden + column),
                                params.hidden - column);
  }
}

template <int kWords>
__device__ void PushRow(const PeerOperation& op, const RowTeam& team, int64_t row, int64_t words,
                        const uint4 (&own)[kWords]) {
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    const int64_t w = team.Word(k);
    if (w >= words) break;
    const uint4 word = MarkNotEmpty(own[k]);
    for (int peer = 0; peer < op.world(); ++peer) {
      if (peer != op.rank()) StoreRelaxed(op.Outbox(peer) + row * words + w, word);
    }
  }
}

template <typename T, bool kAligned, int kRanks, int kWords>
__device__ void ReduceRow(const Params& params, PeerOperation& op, const RowTeam& team, int64_t row,
                          const RowWeights<kAligned, T, kWords>& weights, RowSum& row_sum) {
  const int64_t words = RowWords(params.hidden, sizeof(T));
  uint4 residual[kWords];
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    const int64_t w = team.Word(k);
    if (w >= words) break;
    const int64_t column = w * kWordElements<T>, i = row * params.hidden + column;
    const int64_t count = params.hidden - column;
    const uint4 own = MarkNotEmpty(LoadWord<kAligned>(Element<T>(params.partial, i), count));
    if (params.residual_in != nullptr) {
      residual[k] = LoadWord<kAligned>(Element<T>(params.residual_in, i), count);
    }
    uint4 summands[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) summands[r] = own;
    op.AwaitWords(op.Inbox(0) + row * words + w, summands);
    residual[k] =
        SumWord<T>(summands, op.world(), params.residual_in != nullptr ? &residual[k] : nullptr);
  }
  op.GlanceAtStamps();
  NormaliseRow<kAligned, T, kWords>(residual, team, NormOf<T>(params, row), weights, row_sum);
}

template <typename T, bool kAligned, int kRanks, int kWords>
__global__ void __launch_bounds__(Threads(kRanks, kWords), kPeerBlocksPerMultiprocessor)
    OneShotKernel(const __grid_constant__ Params params, int64_t rows) {
  const RowTeam team = RowTeam::Own();
  uint4 own[kWords];  // of the first row, on its way while this thread learns which operation it is
  LoadRow<T, kAligned>(params, team, team.index, own);
  PeerOperation op(params.peers, params.stamp);
  if (!op.refused()) {
    op.PushStamp();
    RowSum row_sum(team);
    const int64_t words = RowWords(params.hidden, sizeof(T));
    PushRow(op, team, team.index, words, own);
    for (int64_t row = team.index + team.teams; row < rows; row += team.teams) {
      LoadRow<T, kAligned>(params, team, row, own);
      PushRow(op, team, row, words, own);
    }
    const RowWeights<kAligned, T, kWords> weights(params.weight, params.hidden, team);
    for (int64_t row = team.index; row < rows; row += team.teams) {
      ReduceRow<T, kAligned, kRanks, kWords>(params, op, team, row, weights, row_sum);
    }
    op.CheckStamps();
  }
  op.Finish();
}

// ---- Two shots

// Each rank reduces a slice of every row. A block's rows depend on the peers' blocks of its index
// alone, so blocks never wait for each other.
struct Slices {
  int64_t words;  // of a row
  int64_t slice;  // of a row by one rank: the last ranks may have fewer, or none
  int64_t world;

  __device__ Slices(int64_t row_words, int ranks)
      : words(row_words), slice((row_words + ranks - 1) / ranks), world(ranks) {}
  __device__ int64_t Begin(int rank) const { return slice * rank < words ? slice * rank : words; }
  __device__ int64_t Count(int rank) const { return Begin(rank + 1) - Begin(rank); }
  // Of row `row` in a Scatter for what `source` sent, and in a Gather.
  __device__ int64_t ScatterRow(int64_t rows, int source, int64_t row) const {
    return (source * rows + row) * slice;
  }
  __device__ int64_t GatherRow(int64_t row) const { return row * slice * world; }
};

// Rows of this block: every gridDim.x-th.
__device__ int64_t BlockRows(int64_t rows) {
  return (rows - blockIdx.x + gridDim.x - 1) / gridDim.x;
}
__device__ int64_t BlockRow(int64_t i) { return blockIdx.x + i * gridDim.x; }

// Words in flight per thread.
constexpr int kBatch = 4;

template <typename T, bool kAligned>
__device__ void ScatterSummands(const Params& params, const PeerOperation& op, const Slices& slices,
                                int64_t rows) {
  const int64_t block_rows = BlockRows(rows);
  for (int64_t w = threadIdx.x; w < slices.words; w += blockDim.x) {
    const int owner = static_cast<int>(w / slices.slice);
    if (owner == op.rank()) continue;
    const int64_t column = w * kWordElements<T>;
    uint4* to = op.Scatter(owner) + w - slices.Begin(owner);
    for (int64_t first = 0; first < block_rows; first += kBatch) {
      uint4 batch[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= block_rows) break;
        const int64_t row = BlockRow(first + i);
        batch[i] = LoadWord<kAligned>(Element<T>(params.partial, row * params.hidden + column),
                                      params.hidden - column);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= block_rows) break;
        to[slices.ScatterRow(rows, op.rank(), BlockRow(first + i))] = batch[i];
      }
    }
  }
}

template <typename T, bool kAligned, int kRanks>
__device__ void ReduceSlice(const Params& params, const PeerOperation& op, const Slices& slices,
                            int64_t rows) {
  const uint32_t count = static_cast<uint32_t>(slices.Count(op.rank()));
  const uint32_t items = static_cast<uint32_t>(BlockRows(rows)) * count;
  const uint4* arrived = op.Scatter(op.rank());
  for (uint32_t item = threadIdx.x; item < items; item += blockDim.x) {
    const int64_t row = BlockRow(item / count), word = item % count;
    const int64_t w = slices.Begin(op.rank()) + word, column = w * kWordElements<T>;
    const int64_t i = row * params.hidden + column, left = params.hidden - column;
    uint4 summands[kRanks], residual;
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= op.world()) break;
      summands[r] = r == op.rank() ? LoadWord<kAligned>(Element<T>(params.partial, i), left)
                                   : __ldcg(arrived + slices.ScatterRow(rows, r, row) + word);
    }
    if (params.residual_in != nullptr) {
      residual = LoadWord<kAligned>(Element<T>(params.residual_in, i), left);
    }
    const uint4 sum =
        SumWord<T>(summands, op.world(), params.residual_in != nullptr ? &residual : nullptr);
    for (int peer = 0; peer < op.world(); ++peer) op.Gather(peer)[slices.GatherRow(row) + w] = sum;
  }
}

template <typename T, bool kAligned, int kRanks, int kWords>
__global__ void __launch_bounds__(Threads(kRanks, kWords), kPeerBlocksPerMultiprocessor)
    TwoShotKernel(const __grid_constant__ Params params, int64_t rows) {
  PeerOperation op(params.peers, params.stamp);
  if (!op.refused()) {
    op.PushStamp();
    const Slices slices(RowWords(params.hidden, sizeof(T)), op.world());
    ScatterSummands<T, kAligned>(params, op, slices, rows);
    op.RaiseFlags(0);
    op.AwaitFlags(0);
    ReduceSlice<T, kAligned, kRanks>(params, op, slices, rows);
    op.RaiseFlags(1);
    const RowTeam team = RowTeam::Own();
    RowSum row_sum(team);
    const RowWeights<kAligned, T, kWords> weights(params.weight, params.hidden, team);
    op.AwaitFlags(1);
    op.GlanceAtStamps();
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
      uint4 residual[kWords];
#pragma unroll
      for (int k = 0; k < kWords; ++k) {
        if (team.Word(k) >= slices.words) break;
        residual[k] = __ldcg(op.Gather(op.rank()) + slices.GatherRow(row) + team.Word(k));
      }
      NormaliseRow<kAligned, T, kWords>(residual, team, NormOf<T>(params, row), weights, row_sum);
    }
    op.CheckStamps();
  }
  op.Finish();
}

// ---- Launching

// Words of a row that one block should have, of so many that each of its threads adds up one word
// of every rank: as measured for 2, 4 and 8 ranks.
int64_t WordsPerBlock(int64_t words, int world) {
  if (world > 2) return 128;
  return words <= 512 ? 512 : 256;
}

RowGridLimits LimitsOf(const Params& params) {
  return {.max_blocks = params.peers.max_blocks,
          .max_row_blocks = params.peers.max_row_blocks,
          .max_threads = kPeerThreads,
          .max_one_word_threads = params.dtype == DType::kFloat32
                                      ? kPeerThreads
                                      : Threads(params.peers.layout.world, 1),
          .max_thread_words = MaxThreadWords(SizeOf(params.dtype))};
}

// Calls fn with a bound on the ranks, as std::integral_constant.
template <typename Fn>
CudaLaunch WithRanks(int world, const Fn& fn) {
  if (world <= 2) return fn(std::integral_constant<int, 2>{});
  if (world <= 4) return fn(std::integral_constant<int, 4>{});
  if (world <= 8) return fn(std::integral_constant<int, 8>{});
  return fn(std::integral_constant<int, kMaxPeers>{});
}

// Of float32, whose speed matters less, there are only the kernels that take every group and row.
template <typename T, int kBound, int kMost>
using BoundOf = std::integral_constant<int, std::is_same_v<T, float> ? kMost : kBound>;

// Calls fn with an element, whether rows are aligned, a bound on the ranks and on the words of a
// thread.
template <typename Fn>
CudaLaunch Dispatch(const Params& params, const RowGridPlan& plan, const Fn& fn) {
  return WithRowShape(plan, [&](auto aligned, auto words) {
    const auto with_ranks = [&](auto ranks) {
      return WithElementType(params.dtype, [&](auto element) {
        using T = decltype(element);
        using Words = BoundOf<T, words.value, kMostWords>;
        return fn(element, aligned, BoundOf<T, ranks.value, kMaxPeers>{},
                  ThreadWords<T, Words::value>{});
      });
    };
    if constexpr (!aligned.value) {
      return with_ranks(std::integral_constant<int, kMaxPeers>{});
    } else {
      return WithRanks(params.peers.layout.world, with_ranks);
    }
  });
}

bool IsAligned(const Params& params) {
  return params.hidden * SizeOf(params.dtype) % 16 == 0 &&
         AreWordsAligned(params.partial, params.residual_in, params.weight, params.residual_out,
                         params.norm_out);
}

}  // namespace

int64_t OneShotBytes(int64_t rows, int64_t hidden, DType dtype) {
  return rows * RowWords(hidden, SizeOf(dtype)) * 16;
}

int64_t TwoShotBytes(int64_t rows, int64_t hidden, DType dtype, int world) {
  return rows * ((RowWords(hidden, SizeOf(dtype)) + world - 1) / world) * world * 16;
}

CudaLaunch AllReduceRmsNormOneShotCuda(const Params& params, int64_t rows, CudaStream stream) {
  const int64_t words = RowWords(params.hidden, SizeOf(params.dtype));
  const RowGridLimits limits = LimitsOf(params);
  const int blocks_per_row =
      params.blocks_per_row != 0
          ? params.blocks_per_row
          : BlocksPerRow(rows, words, WordsPerBlock(words, params.peers.layout.world), limits);
  RowGridPlan plan;
  if (OneShotBytes(rows, params.hidden, params.dtype) > params.peers.layout.slot_bytes ||
      !PlanRowGrid(rows, words, IsAligned(params), blocks_per_row, limits, &plan)) {
    return {cudaErrorInvalidValue};
  }
  return Dispatch(params, plan, [&](auto element, auto aligned, auto ranks, auto words) {
    return LaunchRows<OneShotKernel<decltype(element), aligned.value, ranks.value, words.value>>(
        plan, stream, params, rows);
  });
}

CudaLaunch AllReduceRmsNormTwoShotCuda(const Params& params, int64_t rows, CudaStream stream) {
  const PeerLayout& layout = params.peers.layout;
  RowGridPlan plan;
  if (TwoShotBytes(rows, params.hidden, params.dtype, layout.world) > layout.slice_bytes ||
      !PlanRowGrid(rows, RowWords(params.hidden, SizeOf(params.dtype)), IsAligned(params), 1,
                   LimitsOf(params), &plan) ||
      plan.blocks_per_row != 1) {
    return {cudaErrorInvalidValue};
  }
  return Dispatch(params, plan, [&](auto element, auto aligned, auto ranks, auto words) {
    return LaunchRows<TwoShotKernel<decltype(element), aligned.value, ranks.value, words.value>>(
        plan, stream, params, rows);
  });
}

}  // namespace muster
