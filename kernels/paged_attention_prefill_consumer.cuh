#ifndef MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_CONSUMER_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_CONSUMER_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention_prefill_stages.cuh"
#include "kernels/wgmma_sm90.cuh"

namespace muster::prefill {

// A warpgroup that attends with its half of a tile's queries.
template <typename T, int kDim>
class Consumer {
 public:
  using Shape = PrefillShape<kDim>;

  __device__ Consumer(const AttentionArgs& args, PrefillShared<kDim>& shared)
      : args_(args),
        shared_(shared),
        number_(static_cast<int>(threadIdx.x) / kGroupThreads - 1),
        thread_(static_cast<int>(threadIdx.x) % kGroupThreads),
        scale_(args.score_scale * kLog2E) {
    if (number_ == 1) PassTurn();
  }

  __device__ void Run(const PrefillTile& tile, int32_t chunk) {
    // Hides that it is a constant: what follows from it would be kept over Attend, and spilt.
    asm volatile("" : "+r"(thread_));
    tile_ = tile;
    chunk_ = ChunkOf(args_, chunk);
    const int32_t stages = StagesOf<Shape::kUnits>(UnitsOf(args_, *args_.params.kv, tile));
    LoadQueries();
    Reset();
    asm volatile("cp.async.wait_all;" ::: "memory");
    FenceSharedForProducts();
    Synchronize();
    if (stages > 0) Attend(stages);
    Finish();
  }

 private:
  struct Place {
    int32_t row;
    int32_t head;
    bool there;
  };

  // Of query `i` of this consumer's: heads of a row follow each other.
  __device__ Place PlaceOf(int i) const {
    const int query = number_ * kQueries + i;
    const int row = args_.chunk_heads.Quotient(query);
    const int head = query - row * args_.chunk_heads.divisor();
    return {tile_.first_row + row, chunk_.first_head + head,
            row < tile_.rows && head < chunk_.heads};
  }
  __device__ int QueryOf(int half) const { return thread_ / 32 * 16 + thread_ % 32 / 4 + half * 8; }

  __device__ void Reset() {
#pragma unroll
    for (float& value : out_) value = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Place place = PlaceOf(QueryOf(half));
      ranges_[half] =
          place.there ? RangeOf(args_, args_.params.positions[place.row]) : EmptyRange();
      max_[half] = -INFINITY;
      sum_[half] = 0;
    }
  }

  // With the other threads of this consumer.
  __device__ void Synchronize() const {
    asm volatile("bar.sync %0, %1;" ::"r"(number_ + 1), "n"(kGroupThreads) : "memory");
  }

  // The consumers take turns at starting products: one's run while the other weighs.
  __device__ void TakeTurn() const {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + kConsumers + number_), "n"(2 * kGroupThreads)
                 : "memory");
  }
  __device__ void PassTurn() const {
    static_assert(kConsumers == 2);
    asm volatile("bar.arrive %0, %1;" ::"r"(1 + kConsumers + 1 - number_), "n"(2 * kGroupThreads)
                 : "memory");
  }

  // Calls fn(offset, place) for the eight elements from column piece() * 8 on of those of the
  // warp's queries that are this lane's; none(offset) where they are not there. `offset` is theirs
  // in shared memory.
  template <typename Fn, typename NoneFn>
  __device__ void ForEachPiece(const Fn& fn, const NoneFn& none) const {
    constexpr int kAtATime = 32 / Shape::kPieces;
    const int first = thread_ / 32 * 16 + thread_ % 32 / Shape::kPieces;
    const bool has_column = piece() * 8 < args_.params.layout.head_dim;
#pragma unroll
    for (int i = 0; i < 16; i += kAtATime) {
      const Place place = PlaceOf(first + i);
      const uint32_t offset = SwizzledOffset(kQueries, first + i, piece());
      if (place.there && has_column) {
        fn(offset, place);
      } else {
        none(offset);
      }
    }
  }
  __device__ int piece() const { return thread_ % 32 % Shape::kPieces; }

  // Asynchronously where it can be.
  __device__ void LoadQueries() {
    std::byte* queries = shared_.queries[number_];
    const uint32_t to = SharedAddress(queries);
    const auto at = [&](const Place& place) {
      return QueryAt(args_, place.row, place.head) + piece() * 8;
    };
    const auto clear = [&](uint32_t offset) {
      *reinterpret_cast<uint4*>(queries + offset) = make_uint4(0, 0, 0, 0);
    };
    if (args_.aligned_q && !args_.negate) {
      ForEachPiece([&](uint32_t offset, const Place& place) { CopyAsync(to + offset, at(place)); },
                   clear);
    } else {
      ForEachPiece(
          [&](uint32_t offset, const Place& place) {
            *reinterpret_cast<uint4*>(queries + offset) = LoadQuery(args_, at(place));
          },
          clear);
    }
  }

  // The scores of a stage are computed while the values of the one before are summed.
  __device__ void Attend(int32_t stages) {
    float scores[Shape::kKeys / 2];
    float weights[Shape::kKeys / 2];
    float decay[2];
    StartScores(scores);
    WaitForProducts<0>();
    PinRegisters(scores);
    Release(shared_.keys_empty);
    Weigh(scores, weights, decay);
    Pack(weights);
    for (int32_t i = 1; i < stages; ++i) {
      const auto previous = counter_;
      counter_ = counter_.Next();
      TakeTurn();
      StartScores(scores);
      StartSum(previous);
      PassTurn();
      WaitForProducts<1>();
      PinRegisters(scores);
      Release(shared_.keys_empty);
      Weigh(scores, weights, decay);
      // All lanes, always: keeps the wait for the products behind the weights it overlaps.
      __syncwarp(__ballot_sync(kAllLanes, !(sum_[0] + sum_[1] < 0)));
      FinishSum(previous);
      Decay(decay);
      Pack(weights);
    }
    BeginProducts();
    StartSum(counter_);
    FinishSum(counter_);
    counter_ = counter_.Next();
  }

  __device__ void Release(uint64_t (&empty)[Shape::kStages]) { Release(empty, counter_); }
  __device__ void Release(uint64_t (&empty)[Shape::kStages], StageCounter<Shape::kStages> counter) {
    __syncwarp();
    if (thread_ % 32 == 0) Arrive(SharedAddress(&empty[counter.stage()]));
  }

  __device__ void StartScores(float (&scores)[Shape::kKeys / 2]) {
    const int stage = counter_.stage();
    WaitForBarrier(SharedAddress(&shared_.keys_full[stage]), counter_.phase());
    FenceSharedForProducts();
    PinRegisters(scores);
    BeginProducts();
    const uint32_t queries = SharedAddress(shared_.queries[number_]);
    const uint32_t keys = SharedAddress(shared_.keys[stage]);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int panel = step / 4;
      constexpr int kQueryPanel = kQueries * kPanelRowBytes;
      constexpr int kKeyPanel = Shape::kKeys * kPanelRowBytes;
      const uint32_t within = step % 4 * 32;
      MultiplyByRows<T>(scores,
                        MatrixDescriptor(queries + panel * kQueryPanel + within, kQueryPanel),
                        MatrixDescriptor(keys + panel * kKeyPanel + within, kKeyPanel), step > 0);
    }
    CommitProducts();
  }

  __device__ void StartSum(StageCounter<Shape::kStages> counter) {
    const int stage = counter.stage();
    WaitForBarrier(SharedAddress(&shared_.values_full[stage]), counter.phase());
    FenceSharedForProducts();
    PinRegisters(out_);
    BeginProducts();
    const uint32_t values = SharedAddress(shared_.values[stage]);
#pragma unroll
    for (int step = 0; step < Shape::kKeys / 16; ++step) {
      MultiplyAdd<T>(
          out_, weights_[step],
          MatrixDescriptor(values + step * 16 * kPanelRowBytes, Shape::kKeys * kPanelRowBytes));
    }
    CommitProducts();
  }

  __device__ void FinishSum(StageCounter<Shape::kStages> counter) {
    WaitForProducts<0>();
    PinRegisters(out_);
#pragma unroll
    for (auto& weights : weights_) PinRegisters(weights);
    Release(shared_.values_empty, counter);
  }

  __device__ void Mask(float (&scores)[Shape::kKeys / 2]) const {
    const auto& notes = shared_.notes[counter_.count % Shape::kNotes];
    const auto last_start = static_cast<uint32_t>(StartOf(args_, tile_.max_position));
    if (notes.largest <= static_cast<uint32_t>(tile_.min_position) && notes.least >= last_start) {
      return;
    }
#pragma unroll
    for (int unit = 0; unit < Shape::kUnits; ++unit) {
      const uint32_t position = notes.positions[unit] + thread_ % 4 * 2;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!ranges_[i / 2].Has(position + i % 2)) scores[unit * 4 + i] = -INFINITY;
      }
    }
  }

  // Makes weights of scores; `decay` is for what was summed so far.
  __device__ void Weigh(float (&scores)[Shape::kKeys / 2], float (&weights)[Shape::kKeys / 2],
                        float (&decay)[2]) {
    Mask(scores);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float max = max_[half];
#pragma unroll
      for (int unit = 0; unit < Shape::kUnits; ++unit) {
        max = fmaxf(max, fmaxf(scores[unit * 4 + half * 2], scores[unit * 4 + half * 2 + 1]));
      }
      max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 1));
      max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2));
      const float shift = Shift(max) * scale_;
      decay[half] = Exp2(max_[half] * scale_ - shift);
      max_[half] = max;
      float sum = 0;
#pragma unroll
      for (int unit = 0; unit < Shape::kUnits; ++unit) {
#pragma unroll
        for (int i = unit * 4 + half * 2; i < unit * 4 + half * 2 + 2; ++i) {
          weights[i] = Exp2(scores[i] * scale_ - shift);
          sum += weights[i];
        }
      }
      sum_[half] = sum_[half] * decay[half] + sum;
    }
  }

  __device__ void Decay(const float (&decay)[2]) {
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out_[i] *= decay[i / 2 % 2];
  }

  __device__ void Pack(const float (&weights)[Shape::kKeys / 2]) {
#pragma unroll
    for (int step = 0; step < Shape::kKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights_[step][i] = PackPair<T>(weights[step * 8 + i * 2], weights[step * 8 + i * 2 + 1]);
      }
    }
  }

  // Results go through the queries' memory, so that they are written in whole vectors.
  __device__ void Finish() {
    std::byte* results = shared_.queries[number_];
    Synchronize();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sum_[half];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const float norm = sum == 0 ? 0 : 1 / sum;
      const int query = QueryOf(half);
      const Place place = PlaceOf(query);
      if (place.there && thread_ % 4 == 0) {
        *LseOf(args_, place.row, place.head) = Lse(args_, max_[half], sum);
      }
#pragma unroll
      for (int piece = 0; piece < Shape::kPieces; ++piece) {
        const int i = piece * 4 + half * 2;
        *reinterpret_cast<uint32_t*>(results + SwizzledOffset(kQueries, query, piece) +
                                     thread_ % 4 * 4) =
            PackPair<T>(out_[i] * norm, out_[i + 1] * norm);
      }
    }
    __syncwarp();
    StoreResults(results);
    __syncwarp();
  }

  __device__ void StoreResults(const std::byte* results) const {
    const auto nothing = [](uint32_t) {};
    if (args_.aligned_out) {
      ForEachPiece(
          [&](uint32_t offset, const Place& place) {
            *reinterpret_cast<uint4*>(OutOf<T>(args_, place.row, place.head) + piece() * 8) =
                *reinterpret_cast<const uint4*>(results + offset);
          },
          nothing);
    } else {
      ForEachPiece(
          [&](uint32_t offset, const Place& place) {
            T* to = OutOf<T>(args_, place.row, place.head) + piece() * 8;
            const auto* from = reinterpret_cast<const T*>(results + offset);
#pragma unroll 1
            for (int i = 0; i < 8; ++i) to[i] = from[i];
          },
          nothing);
    }
  }

  const AttentionArgs& args_;
  PrefillShared<kDim>& shared_;
  const int number_;
  int thread_;
  const float scale_;
  StageCounter<Shape::kStages> counter_;
  PrefillTile tile_;
  HeadChunk chunk_;
  KeyRange ranges_[2];
  float max_[2];
  float sum_[2];
  uint32_t weights_[Shape::kKeys / 16][4];
  float out_[kDim / 2];
};

}  // namespace muster::prefill

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_PREFILL_CONSUMER_CUH_
