// What the CUDA kernels of PagedAttention share.
//
// Three kernels do it. One of plain float32 arithmetic takes every type and shape. The other two
// use tensor cores, where activations and KV have one 16-bit type, head_dim is a multiple of 8 and
// block_size too: one made for decoding and one for prefill. Up to kMaxDecodeRows rows all belong
// to the decode kernel. In longer steps a run, rows of one sequence that follow each other, belongs
// to it when it has at most kMaxShortRun rows; other runs, and padding, are prefill's. A kernel of
// one block, PlanAttention, tells the two in such a step who does what.
#ifndef MUSTER_KERNELS_PAGED_ATTENTION_CUDA_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_CUDA_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_elements.cuh"
#include "kernels/fast_divisor.cuh"
#include "kernels/paged_attention.h"

namespace muster {

constexpr int64_t kMaxDecodeRows = 32;
constexpr int kMaxShortRun = 8;
constexpr int kUnitKeys = 8;        // keys of one block, of consecutive positions: a unit
constexpr int kMaxChunkHeads = 16;  // query heads that share the reading of a KV head
constexpr int kPrefillRows = 128;   // rows x heads of a chunk in a tile of prefill
constexpr float kLog2E = 1.4426950408889634f;

// Consecutive rows of one sequence, or of padding (sequence -1), that one block of prefill takes.
struct PrefillTile {
  int32_t first_row;
  int32_t rows;
  int32_t sequence;
  int32_t min_position;
  int32_t max_position;
};

// What PlanAttention finds out about a step, in scratch.
struct AttentionPlan {
  int32_t* counts;       // of tiles, of decode_rows
  PrefillTile* tiles;    // in order of rows
  int32_t* decode_rows;  // ascending
};

// How the decode kernel splits the keys of a row. A row that is the k-th of those it works on may
// have splits where its slots [k * max_splits, (k + 1) * max_splits) exist.
struct DecodeSplits {
  int32_t max_splits;
  FastDivisor min_tiles;  // of a split
  int32_t slots;
  float* partial_out;    // [slots, heads, head_dim], not normalised
  float2* partial_sums;  // [slots, heads]: largest score, sum of weights
  int32_t* arrivals;     // [slots, KV heads x chunks]: zero between launches
};

// The parameters, and what follows from them alone.
struct AttentionArgs {
  PagedAttentionParams params;
  int64_t rows;
  float score_scale;  // |scale|; queries are negated where scale is negative
  bool negate;
  bool aligned_q;  // q and its stride allow vectors
  bool aligned_out;
  FastDivisor chunk_heads;  // query heads of a chunk; the last of a KV head may have fewer
  int32_t chunks;           // of a KV head
  FastDivisor all_chunks;   // of all KV heads
  FastDivisor block_size;
  FastDivisor units_per_block;
  FastDivisor ranks;
  int64_t block_bytes;
  int64_t key_offset;  // bytes from a block to the page of KV head 0 in this layer
  int64_t value_offset;
  int64_t page_bytes;  // from KV head to KV head
  AttentionPlan plan;  // counts are null in a step without one: decode takes all rows
  DecodeSplits splits;
};

// The query heads that share one reading of keys.
struct HeadChunk {
  int32_t kv_head;
  int32_t first_head;
  int32_t heads;
};

__device__ inline HeadChunk ChunkOf(const AttentionArgs& args, int32_t number) {
  const int32_t group = args.params.heads / args.params.layout.kv_heads;
  const int32_t kv_head = number / args.chunks;
  const int32_t first = (number - kv_head * args.chunks) * args.chunk_heads.divisor();
  return {kv_head, kv_head * group + first, min(args.chunk_heads.divisor(), group - first)};
}

// Key positions as a row's mask sees them: [start, start + span] unsigned, so that one comparison
// tells, and kNoPosition, which no row reaches, marks keys that are not there.
constexpr uint32_t kNoPosition = 0x80000000u;

struct KeyRange {
  uint32_t start;
  uint32_t span;

  __device__ bool Has(uint32_t position) const { return position - start <= span; }
};

// The first position that a row at `position` attends to.
__device__ inline int32_t StartOf(const AttentionArgs& args, int32_t position) {
  return static_cast<int32_t>(WindowStart(args.params, position));
}

__device__ inline KeyRange RangeOf(const AttentionArgs& args, int32_t position) {
  const auto start = static_cast<uint32_t>(StartOf(args, position));
  return {start, static_cast<uint32_t>(position) - start};
}

// Of a row that is not there.
__device__ inline KeyRange EmptyRange() { return {0xFFFFFFFFu, 0}; }

// Some units of a sequence that this rank holds, numbered as its blocks lie in the block table.
struct UnitRange {
  int32_t begin = 0;
  int32_t end = 0;

  __device__ int32_t count() const { return end - begin; }
};

// How many of the blocks before number `block` this rank holds.
__device__ inline int32_t BlocksBefore(const AttentionArgs& args, int32_t block) {
  const int32_t others = args.params.ownership.rank;
  return block <= others ? 0 : args.ranks.Quotient(block - others - 1) + 1;
}

// Those whose blocks have positions in [first, last].
__device__ inline UnitRange UnitsBetween(const AttentionArgs& args, const KvDescriptor& kv,
                                         int32_t sequence, int32_t first, int32_t last) {
  UnitRange units;
  if (sequence < 0 || last < 0 || kv.base == nullptr) return units;
  const int32_t blocks = BlocksBefore(args, args.block_size.Quotient(last) + 1);
  const auto mapped = static_cast<int32_t>(min(int64_t{blocks}, kv.max_local_blocks));
  const int32_t units_per_block = args.units_per_block.divisor();
  units.begin = BlocksBefore(args, args.block_size.Quotient(first)) * units_per_block;
  units.end = max(units.begin, mapped * units_per_block);
  return units;
}

// The position of a unit's first key, or kNoPosition where there is none; `*bytes` is where its
// keys and values begin in their pages.
__device__ inline uint32_t FindUnit(const AttentionArgs& args, const KvDescriptor& kv,
                                    int32_t sequence, int32_t unit, int32_t end,
                                    const std::byte** bytes) {
  const auto* base = static_cast<const std::byte*>(kv.base);
  *bytes = base;
  if (unit >= end) return kNoPosition;
  const int32_t local = args.units_per_block.Quotient(unit);
  const int32_t slot = (unit - local * args.units_per_block.divisor()) * kUnitKeys;
  const int64_t block = kv.block_tables[sequence * kv.max_local_blocks + local];
  if (block < 0 || block >= kv.num_blocks) return kNoPosition;
  *bytes = base + block * args.block_bytes + int64_t{slot * args.params.layout.head_dim} * 2;
  const KvOwnership& ownership = args.params.ownership;
  return static_cast<uint32_t>(local * ownership.size + ownership.rank) *
             static_cast<uint32_t>(args.params.layout.block_size) +
         static_cast<uint32_t>(slot);
}

// 2^x; of -infinity 0.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A maximum as what is subtracted: 0 where no score was seen.
__device__ inline float Shift(float max) { return max == -INFINITY ? 0.0f : max; }

// Copies 16 bytes into shared memory asynchronously.
__device__ inline void CopyAsync(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// The same, or zeros where not `wanted`; `from` is a valid
// address even then.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool wanted) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(wanted ? 16 : 0)
               : "memory");
}

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

template <typename T>
__device__ uint32_t PackPair(float low, float high) {
  const float pair[2] = {low, high};
  return CudaElement<T>::Pack(pair);
}

// The bits of the first element of a row's head.
__device__ inline const uint16_t* QueryAt(const AttentionArgs& args, int64_t row, int32_t head) {
  return static_cast<const uint16_t*>(args.params.q) + row * args.params.q_row_stride +
         int64_t{head} * args.params.layout.head_dim;
}

// Eight elements, negated where queries are.
__device__ inline uint4 LoadQuery(const AttentionArgs& args, const uint16_t* from) {
  const uint32_t signs = args.negate ? 0x80008000u : 0;
  const auto pair = [&](int i) { return (from[i] | uint32_t{from[i + 1]} << 16) ^ signs; };
  return make_uint4(pair(0), pair(2), pair(4), pair(6));
}

template <typename T>
__device__ T* OutOf(const AttentionArgs& args, int64_t row, int32_t head) {
  return static_cast<T*>(args.params.out) + row * args.params.out_row_stride +
         int64_t{head} * args.params.layout.head_dim;
}

__device__ inline float* LseOf(const AttentionArgs& args, int64_t row, int32_t head) {
  return args.params.lse + row * args.params.lse_row_stride + head;
}

// The natural logarithm of the sum of exp(score), whose largest is `max` unscaled.
__device__ inline float Lse(const AttentionArgs& args, float max, float sum) {
  return sum == 0 ? -INFINITY : Shift(max) * args.score_scale + logf(sum);
}

// The launchers of the parts; each takes the rows that are its own.
CudaLaunch LaunchPlainAttention(const AttentionArgs& args, CudaStream stream);
CudaLaunch PlanAttention(const AttentionArgs& args, CudaStream stream);
CudaLaunch LaunchDecodeAttention(const AttentionArgs& args, int multiprocessors, CudaStream stream);
CudaLaunch LaunchPrefillAttention(const AttentionArgs& args, int multiprocessors,
                                  CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_CUDA_CUH_
