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
  static constexpr int kStages = kDim == 64 ? 4 : kDim == 128 ? 3 : 2;
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
  const int32_t chunks = args.all_chunks.divisor();
  const int32_t tiles = args.plan.counts[0];
  const int32_t total = tiles * chunks;
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const auto block = static_cast<int32_t>(blockIdx.x);
  for (int32_t round = 0; round * blocks < total; ++round) {
    const int32_t number = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
    if (number >= total) continue;
    const int32_t tile = args.all_chunks.Quotient(number);
    fn(args.plan.tiles[tiles - 1 - tile], number - tile * chunks);
  }
}

__device__ inline UnitRange UnitsOf(const AttentionArgs& args, const KvDescriptor& kv,
                                    const PrefillTile& tile) {
  return UnitsBetween(args, kv, tile.sequence, StartOf(args, tile.min_position), tile.max_position);
}

template <int kUnits>
__device__ int32_t StagesOf(const UnitRange& units) {
  return (units.count() + kUnits - 1) / kUnits;
}

}  // namespace muster::prefill

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_STAGES_CUH_
