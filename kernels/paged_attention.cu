#include <algorithm>
#include <cmath>

#include "kernels/paged_attention.h"
#include "kernels/paged_attention_cuda.cuh"

namespace muster {
namespace {

constexpr int32_t kSlots = 512;  // of partial results; a slot holds all heads
constexpr int32_t kMaxSplits = 32;
constexpr int32_t kFewSplits = 8;      // of rows that fill the device without
constexpr int32_t kMixedSplits = 4;    // of decode rows beside prefill
constexpr int32_t kTypicalTiles = 64;  // 1,024 keys: what a split of such rows should have
constexpr int32_t kFewestTiles = 4;    // one for each warp
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool UsesTensorCores(const PagedAttentionParams& params) {
  return params.activation != DType::kFloat32 && params.layout.dtype == params.activation &&
         params.layout.head_dim % 8 == 0 && params.layout.block_size % kUnitKeys == 0;
}

// The parts of scratch, one after the other. What decode leaves zero comes first, at a place that
// does not depend on rows.
class ScratchParts {
 public:
  ScratchParts(const AttentionArgs& args, int64_t rows, void* data)
      : data_(static_cast<std::byte*>(data)) {
    const PagedAttentionParams& params = args.params;
    arrivals = Take<int32_t>(int64_t{kSlots} * params.layout.kv_heads * args.chunks);
    partial_sums = Take<float2>(int64_t{kSlots} * params.heads);
    partial_out = Take<float>(int64_t{kSlots} * params.heads * params.layout.head_dim);
    plan.counts = Take<int32_t>(2);
    plan.tiles = Take<PrefillTile>(rows);
    plan.decode_rows = Take<int32_t>(rows);
  }

  size_t bytes() const { return static_cast<size_t>(bytes_); }

  int32_t* arrivals;
  float2* partial_sums;
  float* partial_out;
  AttentionPlan plan;

 private:
  template <typename T>
  T* Take(int64_t count) {
    T* part = data_ == nullptr ? nullptr : reinterpret_cast<T*>(data_ + bytes_);
    bytes_ += Aligned(count * static_cast<int64_t>(sizeof(T)));
    return part;
  }

  std::byte* data_;
  int64_t bytes_ = 0;
};

AttentionArgs ArgsOf(const PagedAttentionParams& params, int64_t rows) {
  const KvLayout& layout = params.layout;
  AttentionArgs args{};
  args.params = params;
  args.rows = rows;
  args.score_scale = std::max(std::fabs(params.scale), 1e-30f);
  args.negate = params.scale < 0;
  args.aligned_q = IsVectorAligned(params.q) && params.q_row_stride % 8 == 0;
  args.aligned_out = IsVectorAligned(params.out) && params.out_row_stride % 8 == 0;
  const int32_t group = params.heads / layout.kv_heads;
  args.chunks = (group + kMaxChunkHeads - 1) / kMaxChunkHeads;
  args.chunk_heads = FastDivisor((group + args.chunks - 1) / args.chunks);
  args.key_offset = KvPageOffset(layout, params.layer, KvPart::kKey, 0);
  args.value_offset = KvPageOffset(layout, params.layer, KvPart::kValue, 0);
  args.all_chunks = FastDivisor(layout.kv_heads * args.chunks);
  args.block_size = FastDivisor(layout.block_size);
  args.units_per_block = FastDivisor(std::max(1, layout.block_size / kUnitKeys));
  args.ranks = FastDivisor(params.ownership.size);
  args.block_bytes = KvBlockBytes(layout);
  args.page_bytes = int64_t{layout.block_size} * layout.head_dim * KvElementBytes(layout);
  return args;
}

// Blocks of decode that the device holds, two on a multiprocessor, shared out to the rows' tasks.
DecodeSplits SplitsFor(const AttentionArgs& args, const ScratchParts& parts, int multiprocessors) {
  const int64_t tasks = args.rows * args.params.layout.kv_heads * args.chunks;
  const auto each = static_cast<int32_t>(std::max<int64_t>(1, 2 * multiprocessors / tasks));
  DecodeSplits splits{};
  splits.max_splits =
      args.rows > kMaxDecodeRows ? kMixedSplits : std::min(kMaxSplits, std::max(kFewSplits, each));
  splits.min_tiles = FastDivisor(std::max(kFewestTiles, kTypicalTiles / each));
  splits.slots = kSlots;
  splits.partial_out = parts.partial_out;
  splits.partial_sums = parts.partial_sums;
  splits.arrivals = parts.arrivals;
  return splits;
}

// The prefill kernel is made of instructions of compute capability 9.0 alone.
bool HasPrefillKernel() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9;
}

CudaLaunch LaunchMixed(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  if (const CudaLaunch plan = PlanAttention(args, stream); !plan.ok()) return plan;
  if (const CudaLaunch prefill = LaunchPrefillAttention(args, multiprocessors, stream);
      !prefill.ok()) {
    return prefill;
  }
  return LaunchDecodeAttention(args, multiprocessors, stream);
}

}  // namespace

size_t PagedAttentionScratchBytes(const PagedAttentionParams& params, int64_t max_rows,
                                  int /*multiprocessors*/) {
  if (!UsesTensorCores(params)) return 0;
  return ScratchParts(ArgsOf(params, max_rows), max_rows, nullptr).bytes();
}

CudaLaunch PagedAttentionCuda(const PagedAttentionParams& params, int64_t rows,
                              const PagedAttentionScratch& scratch, int multiprocessors,
                              CudaStream stream) {
  if (rows == 0) return {};
  AttentionArgs args = ArgsOf(params, rows);
  if (!UsesTensorCores(params)) return LaunchPlainAttention(args, stream);
  const ScratchParts parts(args, rows, scratch.data);
  if (parts.bytes() > scratch.bytes) return {static_cast<int>(cudaErrorInvalidValue)};
  args.splits = SplitsFor(args, parts, multiprocessors);
  if (rows <= kMaxDecodeRows || !HasPrefillKernel()) {
    return LaunchDecodeAttention(args, multiprocessors, stream);
  }
  args.plan = parts.plan;
  return LaunchMixed(args, multiprocessors, stream);
}

}  // namespace muster
