#ifndef MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_PRODUCER_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_PRODUCER_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention_prefill_stages.cuh"
#include "kernels/wgmma_sm90.cuh"

namespace muster::prefill {

// The warpgroup that fills the stages.
template <int kDim>
class Producer {
 public:
  using Shape = PrefillShape<kDim>;

  __device__ Producer(const AttentionArgs& args, PrefillShared<kDim>& shared)
      : args_(args),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        piece_(thread_ % 32 % Shape::kPieces),
        first_key_(thread_ % 32 / Shape::kPieces) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      places_[i] = SwizzledOffset(Shape::kKeys,
                                  thread_ / 32 * kUnitKeys + i * kKeysAtATime + first_key_, piece_);
    }
  }

  __device__ void Run(const PrefillTile& tile, int32_t chunk) {
    const KvDescriptor kv = *args_.params.kv;
    const UnitRange units = UnitsOf(args_, kv, tile);
    const int32_t stages = StagesOf<Shape::kUnits>(units);
    const auto start = static_cast<uint32_t>(StartOf(args_, tile.min_position));
    wanted_ = {start, static_cast<uint32_t>(tile.max_position) - start};
    const int64_t page = int64_t{ChunkOf(args_, chunk).kv_head} * args_.page_bytes +
                         (first_key_ * args_.params.layout.head_dim + piece_ * 8) * 2;
    Units next = LookUp(kv, tile, units, 0);
    for (int32_t i = 0; i < stages; ++i) {
      const Units now = next;
      const int stage = counter_.stage();
      WaitForBarrier(SharedAddress(&shared_.keys_empty[stage]), counter_.phase() ^ 1);
      next = LookUp(kv, tile, units, i + 1);
      if (thread_ < 32) WriteNotes(now, stage);
      Fetch(now, page + args_.key_offset, shared_.keys[stage], shared_.keys_full[stage]);
      WaitForBarrier(SharedAddress(&shared_.values_empty[stage]), counter_.phase() ^ 1);
      Fetch(now, page + args_.value_offset, shared_.values[stage], shared_.values_full[stage]);
      counter_ = counter_.Next();
    }
  }

 private:
  static constexpr int kWarps = kGroupThreads / 32;
  static constexpr int kKeysAtATime = 32 / Shape::kPieces;
  static constexpr int kCopies = kUnitKeys / kKeysAtATime;  // of a lane, of a unit

  // The units of a stage: a lane knows one.
  struct Units {
    uint32_t position;
    const std::byte* bytes;
  };

  __device__ Units LookUp(const KvDescriptor& kv, const PrefillTile& tile, const UnitRange& units,
                          int32_t i) const {
    const int lane = thread_ % 32;
    const int32_t unit = units.begin + i * Shape::kUnits + lane;
    const int32_t end = lane < Shape::kUnits ? units.end : 0;
    Units found;
    found.position = FindUnit(args_, kv, tile.sequence, unit, end, &found.bytes);
    return found;
  }

  __device__ void WriteNotes(const Units& units, int stage) {
    auto& notes = shared_.notes[counter_.count % Shape::kNotes];
    const bool mine = thread_ < Shape::kUnits;
    if (mine) notes.positions[thread_] = units.position;
    const uint32_t last =
        units.position == kNoPosition ? kNoPosition : units.position + kUnitKeys - 1;
    const uint32_t least = __reduce_min_sync(kAllLanes, mine ? units.position : 0xFFFFFFFFu);
    const uint32_t largest = __reduce_max_sync(kAllLanes, mine ? last : 0);
    __syncwarp();
    if (thread_ != 0) return;
    notes.least = least;
    notes.largest = largest;
    Arrive(SharedAddress(&shared_.keys_full[stage]));
  }

  // Whether the tile attends to all keys of a unit.
  __device__ bool Wants(uint32_t position) const {
    return wanted_.Has(position) && wanted_.Has(position + kUnitKeys - 1);
  }

  // A warp takes every fourth unit; a lane has the same pieces of all units.
  __device__ void Fetch(const Units& units, int64_t offset, std::byte* to,
                        const uint64_t& full) const {
    const bool mine = thread_ % 32 < Shape::kUnits;
    if (args_.params.layout.head_dim == kDim &&
        __all_sync(kAllLanes, !mine || Wants(units.position))) {
      FetchAll(units, offset, SharedAddress(to));
    } else {
      FetchWanted(units, offset, SharedAddress(to));
    }
    ArriveAfterCopies(SharedAddress(&full));
  }

  static __device__ const std::byte* BytesOf(const Units& units, int unit) {
    return reinterpret_cast<const std::byte*>(
        __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(units.bytes), unit));
  }

  __device__ void FetchAll(const Units& units, int64_t offset, uint32_t to) const {
#pragma unroll
    for (int round = 0; round < Shape::kUnits / kWarps; ++round) {
      const std::byte* from = BytesOf(units, round * kWarps + thread_ / 32) + offset;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        CopyAsync(to + places_[i] + round * kWarps * kUnitKeys * kPanelRowBytes,
                  from + i * kKeysAtATime * kDim * 2);
      }
    }
  }

  // Zeros stand for keys that the tile does not attend to, and for columns that there are not.
  __device__ void FetchWanted(const Units& units, int64_t offset, uint32_t to) const {
    const int32_t head_dim = args_.params.layout.head_dim;
#pragma unroll 1
    for (int round = 0; round < Shape::kUnits / kWarps; ++round) {
      const int unit = round * kWarps + thread_ / 32;
      const std::byte* bytes = BytesOf(units, unit);
      const uint32_t position = __shfl_sync(kAllLanes, units.position, unit) + first_key_;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const bool wanted = wanted_.Has(position + i * kKeysAtATime) && piece_ * 8 < head_dim;
        CopyAsync(to + places_[i] + round * kWarps * kUnitKeys * kPanelRowBytes,
                  wanted ? bytes + offset + i * kKeysAtATime * head_dim * 2 : bytes, wanted);
      }
    }
  }

  const AttentionArgs& args_;
  PrefillShared<kDim>& shared_;
  const int thread_;
  const int piece_;           // of a key, eight elements
  const int first_key_;       // of a unit
  uint32_t places_[kCopies];  // of the thread's pieces of its first unit in a stage
  StageCounter<Shape::kStages> counter_;
  KeyRange wanted_;
};

}  // namespace muster::prefill

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_PRODUCER_CUH_
