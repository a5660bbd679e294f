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
      : args_(args), shared_(shared), thread_(static_cast<int>(threadIdx.x)) {}

  __device__ void Run(const PrefillTile& tile, int32_t chunk) {
    const LocalUnits units = UnitsOf(args_, tile);
    const int32_t stages = StagesOf<Shape::kUnits>(units);
    const int lane = thread_ % 32;
    const auto start = static_cast<uint32_t>(WindowStart(args_.params, tile.min_position));
    wanted_ = {start, static_cast<uint32_t>(tile.max_position) - start};
    page_ = int64_t{ChunkOf(args_, chunk).kv_head} * args_.page_bytes;
    const auto look_up = [&](int32_t i) {
      position_ = lane < Shape::kUnits
                      ? units.Find(units.begin() + i * Shape::kUnits + lane, &bytes_)
                      : kNoPosition;
    };
    if (stages > 0) look_up(0);
    for (int32_t i = 0; i < stages; ++i) {
      const int stage = counter_.stage();
      WaitForBarrier(SharedAddress(&shared_.keys_empty[stage]), counter_.phase() ^ 1);
      if (thread_ < 32) WriteNotes(stage);
      Fetch(args_.key_offset, shared_.keys[stage], shared_.keys_full[stage]);
      WaitForBarrier(SharedAddress(&shared_.values_empty[stage]), counter_.phase() ^ 1);
      Fetch(args_.value_offset, shared_.values[stage], shared_.values_full[stage]);
      look_up(i + 1);
      counter_ = counter_.Next();
    }
  }

 private:
  __device__ void WriteNotes(int stage) {
    auto& notes = shared_.notes[counter_.count % Shape::kNotes];
    const bool mine = thread_ < Shape::kUnits;
    if (mine) notes.positions[thread_] = position_;
    const uint32_t last = position_ == kNoPosition ? kNoPosition : position_ + kUnitKeys - 1;
    const uint32_t least = __reduce_min_sync(kAllLanes, mine ? position_ : 0xFFFFFFFFu);
    const uint32_t largest = __reduce_max_sync(kAllLanes, mine ? last : 0);
    __syncwarp();
    if (thread_ != 0) return;
    notes.least = least;
    notes.largest = largest;
    Arrive(SharedAddress(&shared_.keys_full[stage]));
  }

  // A warp takes every fourth unit; a lane has the same pieces of all units.
  __device__ void Fetch(int64_t part, std::byte* to, const uint64_t& full) const {
    constexpr int kKeysAtATime = 32 / Shape::kPieces;
    const int32_t head_dim = args_.params.layout.head_dim;
    const int piece = thread_ % 32 % Shape::kPieces;
    const int first_key = thread_ % 32 / Shape::kPieces;
    const int64_t offset = part + page_ + (first_key * head_dim + piece * 8) * 2;
    const uint32_t base = SharedAddress(to);
#pragma unroll 2
    for (int unit = thread_ / 32; unit < Shape::kUnits; unit += kGroupThreads / 32) {
      const uint32_t position = __shfl_sync(kAllLanes, position_, unit);
      const std::byte* from = reinterpret_cast<const std::byte*>(
          __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(bytes_), unit));
#pragma unroll
      for (int i = 0; i < kUnitKeys / kKeysAtATime; ++i) {
        const int key = i * kKeysAtATime + first_key;
        const bool wanted = wanted_.Has(position + key) && piece * 8 < head_dim;
        CopyAsync(base + SwizzledOffset(Shape::kKeys, unit * kUnitKeys + key, piece),
                  wanted ? from + offset + i * kKeysAtATime * head_dim * 2 : from, wanted);
      }
    }
    ArriveAfterCopies(SharedAddress(&full));
  }

  const AttentionArgs& args_;
  PrefillShared<kDim>& shared_;
  const int thread_;
  StageCounter<Shape::kStages> counter_;
  KeyRange wanted_;
  int64_t page_;
  uint32_t position_;  // of unit `lane` of the stage to come
  const std::byte* bytes_ = nullptr;
};

}  // namespace muster::prefill

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_PRODUCER_CUH_
