#include "kernels/cuda_launch.cuh"
#include "kernels/paged_attention_cuda.cuh"

namespace muster {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ int32_t SequenceOf(const AttentionArgs& args, int64_t row) {
  return max(args.params.row_sequences[row], -1);
}

// How many rows from row + step on, in steps, follow `row` in its run; kMaxShortRun at most.
__device__ int RowsOfRun(const AttentionArgs& args, int64_t row, int64_t step) {
  const int32_t sequence = SequenceOf(args, row);
  int rows = 0;
  bool same = true;
#pragma unroll
  for (int i = 1; i <= kMaxShortRun; ++i) {
    const int64_t other = row + i * step;
    const bool there = other >= 0 && other < args.rows;
    same = (there ? SequenceOf(args, other) : -2) == sequence && same;
    rows += same ? 1 : 0;
  }
  return rows;
}

// Decode's rows: those of short runs.
__device__ bool IsShort(const AttentionArgs& args, int64_t row) {
  return SequenceOf(args, row) >= 0 &&
         RowsOfRun(args, row, -1) + 1 + RowsOfRun(args, row, 1) <= kMaxShortRun;
}

// Of the threads up to this one: the largest `start`, and the sums of `counts`' halves.
struct Scanned {
  int32_t start;
  uint32_t counts;
};

__device__ Scanned Combine(const Scanned& a, const Scanned& b) {
  return {max(a.start, b.start), a.counts + b.counts};
}

__device__ Scanned ScanWarp(Scanned mine) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const Scanned other{__shfl_up_sync(kAllLanes, mine.start, distance),
                        __shfl_up_sync(kAllLanes, mine.counts, distance)};
    if (lane >= distance) mine = Combine(other, mine);
  }
  return mine;
}

// Over all threads; `*total` is that of the last one.
__device__ Scanned ScanBlock(Scanned mine, Scanned* total) {
  __shared__ Scanned warps[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  mine = ScanWarp(mine);
  if (lane == 31) warps[warp] = mine;
  __syncthreads();
  if (warp == 0) warps[lane] = ScanWarp(warps[lane]);
  __syncthreads();
  *total = warps[kWarps - 1];
  if (warp > 0) mine = Combine(warps[warp - 1], mine);
  __syncthreads();
  return mine;
}

__device__ PrefillTile TileAt(const AttentionArgs& args, int64_t row, int32_t most_rows) {
  PrefillTile tile{static_cast<int32_t>(row), 0, SequenceOf(args, row), INT32_MAX, 0};
  bool same = true;
#pragma unroll 8
  for (int32_t i = 0; i < most_rows; ++i) {
    const bool there = row + i < args.rows;
    const int32_t position = there ? args.params.positions[row + i] : 0;
    same = (there ? SequenceOf(args, row + i) : -2) == tile.sequence && same;
    tile.rows += same ? 1 : 0;
    tile.min_position = same ? min(tile.min_position, position) : tile.min_position;
    tile.max_position = same ? max(tile.max_position, position) : tile.max_position;
  }
  return tile;
}

// Cuts long runs into tiles and lists the rows of short ones, both in order.
__global__ void __launch_bounds__(kThreads) PlanKernel(const __grid_constant__ AttentionArgs args) {
  const int32_t tile_rows = kPrefillRows / args.chunk_heads.divisor();
  int32_t run_start = 0;
  int32_t tiles = 0;
  int32_t decode_rows = 0;
  for (int64_t window = 0; window < args.rows; window += kThreads) {
    const int64_t row = window + threadIdx.x;
    const bool there = row < args.rows;
    const bool starts = there && (row == 0 || SequenceOf(args, row) != SequenceOf(args, row - 1));
    Scanned total;
    const Scanned runs = ScanBlock({starts ? static_cast<int32_t>(row) : 0, 0}, &total);
    const int32_t start = max(run_start, runs.start);
    run_start = max(run_start, total.start);
    const bool is_short = there && IsShort(args, row);
    const bool is_tile = there && !is_short && (row - start) % tile_rows == 0;
    const uint32_t counts = (is_tile ? 0x10000u : 0) + (is_short ? 1u : 0);
    const Scanned places = ScanBlock({0, counts}, &total);
    if (is_tile) {
      args.plan.tiles[tiles + (places.counts >> 16) - 1] = TileAt(args, row, tile_rows);
    }
    if (is_short) {
      args.plan.decode_rows[decode_rows + (places.counts & 0xFFFFu) - 1] =
          static_cast<int32_t>(row);
    }
    tiles += static_cast<int32_t>(total.counts >> 16);
    decode_rows += static_cast<int32_t>(total.counts & 0xFFFFu);
  }
  if (threadIdx.x == 0) {
    args.plan.counts[0] = tiles;
    args.plan.counts[1] = decode_rows;
  }
}

}  // namespace

CudaLaunch PlanAttention(const AttentionArgs& args, CudaStream stream) {
  return Launch<PlanKernel>({.gridDim = 1, .blockDim = kThreads, .stream = stream}, args);
}

}  // namespace muster
