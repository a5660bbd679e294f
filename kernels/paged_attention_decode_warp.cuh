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
  uint16_t queries[kMaxChunkHeads][kDim + 8];
  uint32_t positions[kWarps][Stages(kDim)][kTileUnits];
  bool last;
};

// One split of a row, for one chunk of heads.
struct DecodeTask {
  int32_t row;
  int32_t sequence;
  int32_t position;
  UnitRange units;  // of the row
  int32_t split;
  int32_t splits;
  int32_t slot;  // of the row's first split
  HeadChunk chunk;
  int32_t chunk_number;
};

__device__ inline int32_t TilesOf(const UnitRange& units) {
  return (units.count() + kTileUnits - 1) / kTileUnits;
}

// The partial softmax of a warp: 16 heads x the keys so far.
template <typename T, int kDim>
class WarpAttention {
 public:
  __device__ WarpAttention(const AttentionArgs& args, const KvDescriptor& kv,
                           const DecodeTask& task, DecodeShared<kDim>& shared)
      : args_(args),
        kv_(kv),
        task_(task),
        range_(RangeOf(args, task.position)),
        queries_in_(shared.queries),
        stages_(shared.stages[threadIdx.x / 32]),
        positions_(shared.positions[threadIdx.x / 32]),
        lane_(static_cast<int>(threadIdx.x) % 32),
        page_(int64_t{task.chunk.kv_head} * args.page_bytes) {
#pragma unroll
    for (int pair = 0; pair < kDim / 8; ++pair) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out_[pair][i] = 0;
    }
  }

  // Attends to tiles [begin, end). All warps of the block call it together.
  __device__ void Run(int32_t begin, int32_t end) {
    constexpr int kStages = Stages(kDim);
    first_ = begin;
    CopyQueries();
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) Fetch(begin + i, end, i);
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory");
    __syncthreads();
    if constexpr (kQueriesStay) {
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) LoadQueries(step, queries_[step]);
    }
    int stage = 0;
#pragma unroll 1
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
      if (head >= task_.chunk.heads) continue;
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
    if (ahead == 0) {
      position_ = FindUnit(args_, kv_, task_.sequence,
                           task_.units.begin + tile * kTileUnits + lane_, task_.units.end, &bytes_);
    }
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
#pragma unroll(kDim > 128 ? 4 : kTileKeys * kPieces / 32)
    for (int i = 0; i < kTileKeys * kPieces / 32; ++i) {
      const int key = (i * 32 + lane_) / kPieces;
      const int column = (i * 32 + lane_) % kPieces * 8;
      const bool is_second = key >= kUnitKeys;
      const uint32_t first_position = is_second ? units[1].position : units[0].position;
      const std::byte* bytes = is_second ? units[1].bytes : units[0].bytes;
      const bool wanted =
          kAll || (range_.Has(first_position + key % kUnitKeys) && column < head_dim);
      const std::byte* from =
          wanted ? bytes + page_ + (key % kUnitKeys * head_dim + column) * 2 : bytes;
      const uint32_t offset = (key * kPitch + column) * 2;
      if constexpr (kAll) {
        CopyAsync(keys + offset, from + args_.key_offset);
        CopyAsync(values + offset, from + args_.value_offset);
      } else {
        CopyAsync(keys + offset, from + (wanted ? args_.key_offset : 0), wanted);
        CopyAsync(values + offset, from + (wanted ? args_.value_offset : 0), wanted);
      }
    }
  }

  // The block's threads copy the queries together; a group of its own.
  __device__ void CopyQueries() {
    constexpr int kPieces = kDim / 8;
    const int32_t head_dim = args_.params.layout.head_dim;
    const uint16_t* row = QueryAt(args_, task_.row, task_.chunk.first_head);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kMaxChunkHeads * kPieces; i += kThreads) {
      const int head = i / kPieces;
      const int column = i % kPieces * 8;
      const bool wanted = head < task_.chunk.heads && column < head_dim;
      const uint16_t* from = wanted ? row + head * head_dim + column : row;
      if (args_.aligned_q) {
        CopyAsync(SharedAddress(&queries_in_[head][column]), from, wanted);
        continue;
      }
#pragma unroll 1
      for (int j = 0; j < 8; ++j) queries_in_[head][column + j] = wanted ? from[j] : 0;
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  __device__ void LoadQueries(int step, uint32_t (&to)[4]) const {
    const uint32_t signs = args_.negate ? 0x80008000u : 0;
    LoadMatrices(to, SharedAddress(&queries_in_[lane_ % 16][step * 16 + lane_ / 16 * 8]));
#pragma unroll
    for (uint32_t& pair : to) pair ^= signs;
  }

  // To the keys of a stage.
  __device__ void Attend(int stage) {
    float scores[kTileUnits][4] = {};
    const uint32_t keys = SharedAddress(stages_.stages[stage].keys);
    const uint32_t key_row = lane_ / 16 * 8 + lane_ % 8;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t b[4];
      LoadMatrices(b, keys + (key_row * kPitch + step * 16 + lane_ / 8 % 2 * 8) * 2);
      if constexpr (!kQueriesStay) LoadQueries(step, queries_[0]);
      const uint32_t(&queries)[4] = queries_[kQueriesStay ? step : 0];
      Mma<T>(scores[0], queries, b[0], b[1]);
      Mma<T>(scores[1], queries, b[2], b[3]);
    }
    uint32_t weights[4];
    Weigh(scores, stage, weights);
    const uint32_t values = SharedAddress(stages_.stages[stage].values);
    const uint32_t value_row = lane_ % 16;
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      LoadMatricesTransposed(b, values + (value_row * kPitch + pair * 16 + lane_ / 16 * 8) * 2);
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

  static constexpr int kPitch = WarpStages<kDim>::kPitch;
  static constexpr bool kQueriesStay = kDim <= 128;  // in registers

  const AttentionArgs& args_;
  const KvDescriptor& kv_;
  const DecodeTask& task_;
  const KeyRange range_;
  uint16_t (*const queries_in_)[kDim + 8];
  WarpStages<kDim>& stages_;
  uint32_t (*const positions_)[kTileUnits];
  const int lane_;
  const int64_t page_;
  int32_t first_ = 0;
  uint32_t position_ = kNoPosition;  // of unit `lane_` of those looked up
  const std::byte* bytes_ = nullptr;
  uint32_t queries_[kQueriesStay ? kDim / 16 : 1][4];
  float max_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {0, 0};
  float out_[kDim / 8][4];
};

}  // namespace muster::decode

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_DECODE_WARP_CUH_
