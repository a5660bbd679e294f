#ifndef MUSTER_KERNELS_PAGED_ATTENTION_DECODE_WARP_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_DECODE_WARP_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/mma_sm80.cuh"
#include "kernels/paged_attention_cuda.cuh"

namespace muster::decode {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTileKeys = 16;  // of a warp
constexpr int kTileUnits = kTileKeys / kUnitKeys;
constexpr int kTilesPerLookup = 32 / kTileUnits;  // a lane looks up one unit
constexpr int kMaxSplits = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

constexpr int Stages(int dim) { return dim <= 96 ? 4 : 3; }

// Of keys and of values in a stage. The pitch, an odd number of 16-byte pieces, keeps the eight
// rows that ldmatrix reads at a time in different banks.
template <int kDim>
struct WarpStages {
  static constexpr int kPitch = kDim + 8;
  struct Stage {
    uint16_t keys[kTileKeys][kPitch];
    uint16_t values[kTileKeys][kPitch];
  };
  alignas(16) Stage stages[Stages(kDim)];
};

// A warp's result, and how the warps' are merged: not normalised, scores' maxima unscaled.
template <int kDim>
struct WarpOut {
  float out[kMaxChunkHeads][kDim + 4];
  float max[kMaxChunkHeads];
  float sum[kMaxChunkHeads];
};

template <int kDim>
struct DecodeShared {
  union {
    WarpStages<kDim> stages[kWarps];
    WarpOut<kDim> outs[kWarps];
  };
  uint32_t positions[kWarps][Stages(kDim)][kTileUnits];
  float weights[kMaxChunkHeads][kMaxSplits];
  float sums[kMaxChunkHeads];
  int32_t scan[kWarps];
  int32_t task[4];
  bool last;
};

// One split of a row, for one chunk of heads.
struct DecodeTask {
  int32_t row;
  int32_t split;
  int32_t splits;
  int32_t slot;  // of the row's first split
  HeadChunk chunk;
  int32_t chunk_number;
};

// The partial softmax of a warp: 16 heads x the keys so far.
template <typename T, int kDim>
class WarpAttention {
 public:
  using Stages_ = WarpStages<kDim>;

  __device__ WarpAttention(const AttentionArgs& args, const DecodeTask& task, KeyRange range,
                           const LocalUnits& units, Stages_& stages,
                           uint32_t (*positions)[kTileUnits])
      : args_(args),
        units_(units),
        range_(range),
        stages_(stages),
        positions_(positions),
        lane_(threadIdx.x % 32),
        page_(int64_t{task.chunk.kv_head} * args.page_bytes) {
#pragma unroll
    for (int pair = 0; pair < kDim / 8; ++pair) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out_[pair][i] = 0;
    }
  }

  // Attends to tiles [begin, end).
  __device__ void Run(const DecodeTask& task, int32_t begin, int32_t end) {
    constexpr int kStages = Stages(kDim);
    first_ = begin;
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) Fetch(begin + i, end, i);
    LoadQueries(task);
    int stage = 0;
    for (int32_t tile = begin; tile < end; ++tile) {
      asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
      __syncwarp();
      Attend(stage);
      __syncwarp();
      Fetch(tile + kStages - 1, end, stage == 0 ? kStages - 1 : stage - 1);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum_[half] += __shfl_xor_sync(kAllLanes, sum_[half], 1);
      sum_[half] += __shfl_xor_sync(kAllLanes, sum_[half], 2);
    }
  }

  __device__ void Store(WarpOut<kDim>& to) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = lane_ / 4 + half * 8;
      if (lane_ % 4 == 0) {
        to.max[head] = max_[half];
        to.sum[head] = sum_[half];
      }
#pragma unroll
      for (int piece = 0; piece < kDim / 8; ++piece) {
        *reinterpret_cast<float2*>(&to.out[head][piece * 8 + lane_ % 4 * 2]) =
            make_float2(out_[piece][half * 2], out_[piece][half * 2 + 1]);
      }
    }
  }

 private:
  // Always commits a group, so that groups count tiles.
  __device__ void Fetch(int32_t tile, int32_t end, int stage) {
    if (tile < end) FetchTile(tile, stage);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  struct Unit {
    uint32_t position;
    const std::byte* bytes;
  };

  __device__ Unit LookedUp(int unit) const {
    return {__shfl_sync(kAllLanes, position_, unit),
            reinterpret_cast<const std::byte*>(
                __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(bytes_), unit))};
  }

  // Whether the row attends to all keys of a tile.
  __device__ bool HasAll(const uint32_t (&positions)[kTileUnits]) const {
    bool all = true;
#pragma unroll
    for (const uint32_t position : positions) {
      all = all && range_.Has(position) && range_.Has(position + kUnitKeys - 1);
    }
    return all;
  }

  __device__ void FetchTile(int32_t tile, int stage) {
    const int32_t ahead = (tile - first_) % kTilesPerLookup;
    if (ahead == 0) position_ = units_.Find(units_.begin() + tile * kTileUnits + lane_, &bytes_);
    static_assert(kTileUnits == 2);
    const Unit units[kTileUnits] = {LookedUp(ahead * kTileUnits), LookedUp(ahead * kTileUnits + 1)};
    const uint32_t positions[kTileUnits] = {units[0].position, units[1].position};
    if (lane_ < kTileUnits) positions_[stage][lane_] = lane_ == 0 ? positions[0] : positions[1];
    if (args_.params.layout.head_dim == kDim && HasAll(positions)) {
      Copy<true>(units, stage);
    } else {
      Copy<false>(units, stage);
    }
  }

  // kAll: of all keys; else zeros stand for those that the row does not attend to, and for columns
  // that there are not.
  template <bool kAll>
  __device__ void Copy(const Unit (&units)[kTileUnits], int stage) {
    constexpr int kPieces = kDim / 8;  // of a key
    static_assert(kTileKeys * kPieces % 32 == 0);
    const uint32_t keys = SharedAddress(stages_.stages[stage].keys);
    const uint32_t values = SharedAddress(stages_.stages[stage].values);
    const int32_t head_dim = kAll ? kDim : args_.params.layout.head_dim;
#pragma unroll
    for (int i = 0; i < kTileKeys * kPieces / 32; ++i) {
      const int key = (i * 32 + lane_) / kPieces;
      const int column = (i * 32 + lane_) % kPieces * 8;
      const Unit& unit = key < kUnitKeys ? units[0] : units[1];
      const bool wanted =
          kAll || (range_.Has(unit.position + key % kUnitKeys) && column < head_dim);
      const std::byte* from =
          wanted ? unit.bytes + page_ + (key % kUnitKeys * head_dim + column) * 2 : unit.bytes;
      const uint32_t offset = (key * Stages_::kPitch + column) * 2;
      CopyAsync(keys + offset, from + (wanted ? args_.key_offset : 0), wanted);
      CopyAsync(values + offset, from + (wanted ? args_.value_offset : 0), wanted);
    }
  }

  __device__ void LoadQueries(const DecodeTask& task) {
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = lane_ / 4 + i % 2 * 8;
        const int column = step * 16 + i / 2 * 8 + lane_ % 4 * 2;
        queries_[step][i] =
            head < task.chunk.heads ? QueryPair(task.row, task.chunk.first_head + head, column) : 0;
      }
    }
  }

  __device__ uint32_t QueryPair(int32_t row, int32_t head, int32_t column) const {
    if (column >= args_.params.layout.head_dim) return 0;
    const auto* from = static_cast<const uint16_t*>(args_.params.q) +
                       row * args_.params.q_row_stride +
                       int64_t{head} * args_.params.layout.head_dim + column;
    const uint32_t pair = args_.aligned_q ? *reinterpret_cast<const uint32_t*>(from)
                                          : from[0] | uint32_t{from[1]} << 16;
    return pair ^ (args_.negate ? 0x80008000u : 0);
  }

  // To the keys of a stage.
  __device__ void Attend(int stage) {
    float scores[kTileUnits][4] = {};
    const uint32_t keys = SharedAddress(stages_.stages[stage].keys);
    const uint32_t key_row = lane_ / 16 * 8 + lane_ % 8;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t b[4];
      LoadMatrices(b, keys + (key_row * Stages_::kPitch + step * 16 + lane_ / 8 % 2 * 8) * 2);
      Mma<T>(scores[0], queries_[step], b[0], b[1]);
      Mma<T>(scores[1], queries_[step], b[2], b[3]);
    }
    uint32_t weights[4];
    Weigh(scores, stage, weights);
    const uint32_t values = SharedAddress(stages_.stages[stage].values);
    const uint32_t value_row = lane_ % 16;
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      LoadMatricesTransposed(
          b, values + (value_row * Stages_::kPitch + pair * 16 + lane_ / 16 * 8) * 2);
      Mma<T>(out_[pair * 2], weights, b[0], b[1]);
      Mma<T>(out_[pair * 2 + 1], weights, b[2], b[3]);
    }
  }

  __device__ void Mask(float (&scores)[kTileUnits][4],
                       const uint32_t (&positions)[kTileUnits]) const {
#pragma unroll
    for (int unit = 0; unit < kTileUnits; ++unit) {
      const uint32_t position = positions[unit] + lane_ % 4 * 2;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!range_.Has(position + i % 2)) scores[unit][i] = -INFINITY;
      }
    }
  }

  // Makes weights of scores; what was summed so far is scaled to the new maximum.
  __device__ void Weigh(float (&scores)[kTileUnits][4], int stage, uint32_t (&weights)[4]) {
    if (!HasAll(positions_[stage])) Mask(scores, positions_[stage]);
    const float scale = args_.score_scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = half * 2;
      float max =
          fmaxf(fmaxf(scores[0][i], scores[0][i + 1]), fmaxf(scores[1][i], scores[1][i + 1]));
      max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 1));
      max = fmaxf(max_[half], fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2)));
      const float shift = Shift(max) * scale;
      const float decay = Exp2(max_[half] * scale - shift);
      max_[half] = max;
      float sum = 0;
#pragma unroll
      for (int unit = 0; unit < kTileUnits; ++unit) {
        const float low = Exp2(scores[unit][i] * scale - shift);
        const float high = Exp2(scores[unit][i + 1] * scale - shift);
        sum += low + high;
        weights[unit * 2 + half] = PackPair<T>(low, high);
      }
      sum_[half] = sum_[half] * decay + sum;
#pragma unroll
      for (int piece = 0; piece < kDim / 8; ++piece) {
        out_[piece][i] *= decay;
        out_[piece][i + 1] *= decay;
      }
    }
  }

  const AttentionArgs& args_;
  const LocalUnits& units_;
  const KeyRange range_;
  Stages_& stages_;
  uint32_t (*const positions_)[kTileUnits];
  const int lane_;
  const int64_t page_;
  int32_t first_ = 0;
  uint32_t position_ = kNoPosition;  // of unit `lane_` of those looked up
  const std::byte* bytes_ = nullptr;
  uint32_t queries_[kDim / 16][4];
  float max_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {0, 0};
  float out_[kDim / 8][4];
};

}  // namespace muster::decode

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_DECODE_WARP_CUH_
