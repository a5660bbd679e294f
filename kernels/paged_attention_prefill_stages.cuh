// What the warpgroups of the prefill kernel share: stages of keys and values, and which tiles.
#ifndef MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_STAGES_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_STAGES_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention_cuda.cuh"

namespace muster::prefill {

constexpr int kGroupThreads = 128;
constexpr int kConsumers = 2;
constexpr int kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kQueries = kPrefillRows / kConsumers;  // of a consumer
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

template <int kDim>
struct PrefillShape {
  static constexpr int kKeys = kDim == 256 ? 64 : 128;  // of a stage
  static constexpr int kUnits = kKeys / kUnitKeys;
  static constexpr int kStages = kDim == 64 ? 3 : 2;
  static constexpr int kPieces = kDim / 8;  // of 16 bytes in a key
  static constexpr int kQueryBytes = kQueries * kDim * 2;
  static constexpr int kStageBytes = kKeys * kDim * 2;
  static constexpr int kNotes = 2 * kStages;
};

// What the producer says of the keys of a stage. Notes outlive their stage: they are read after the
// keys are given back.
template <int kUnits>
struct KeyNotes {
  uint32_t positions[kUnits];
  uint32_t least;
  uint32_t largest;
};

template <int kDim>
struct PrefillShared {
  using Shape = PrefillShape<kDim>;
  std::byte queries[kConsumers][Shape::kQueryBytes];
  std::byte keys[Shape::kStages][Shape::kStageBytes];
  std::byte values[Shape::kStages][Shape::kStageBytes];
  KeyNotes<Shape::kUnits> notes[Shape::kNotes];
  uint64_t keys_full[Shape::kStages];
  uint64_t keys_empty[Shape::kStages];
  uint64_t values_full[Shape::kStages];
  uint64_t values_empty[Shape::kStages];
};

// Where the stages of keys that were counted so far have got to.
template <int kStages>
struct StageCounter {
  uint32_t count = 0;

  __device__ int stage() const { return static_cast<int>(count % kStages); }
  __device__ uint32_t phase() const { return count / kStages % 2; }
  __device__ StageCounter Next() const { return {count + 1}; }
};

// Calls fn(tile, chunk number) for the tiles of this block: the longest come first, and every
// second round is dealt backwards, so that all blocks get about the same.
template <typename Fn>
__device__ void ForEachTile(const AttentionArgs& args, const Fn& fn) {
  const int32_t chunks = args.params.layout.kv_heads * args.chunks;
  const int32_t tiles = args.plan.counts[0];
  const int64_t total = int64_t{tiles} * chunks;
  bool backwards = false;
  for (int64_t round = 0; round < total; round += gridDim.x) {
    const int64_t number = round + (backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    backwards = !backwards;
    if (number >= total) continue;
    fn(args.plan.tiles[tiles - 1 - number / chunks], static_cast<int32_t>(number % chunks));
  }
}

__device__ inline LocalUnits UnitsOf(const AttentionArgs& args, const PrefillTile& tile) {
  return LocalUnits(args, tile.sequence, WindowStart(args.params, tile.min_position),
                    tile.max_position);
}

template <int kUnits>
__device__ int32_t StagesOf(const LocalUnits& units) {
  return (units.count() + kUnits - 1) / kUnits;
}

}  // namespace muster::prefill

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_STAGES_CUH_
