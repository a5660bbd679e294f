// Flash-decoding: the keys of a row are split over blocks, and within a block over its warps, each
// of which streams its keys through stages of its own. All query heads of a chunk are the rows of
// one matrix tile, so that a key is read once.

#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/paged_attention_cuda.cuh"
#include "kernels/paged_attention_decode_merge.cuh"
#include "kernels/paged_attention_decode_warp.cuh"

namespace muster {
namespace decode {
namespace {

template <typename T, int kDim>
__device__ void RunTask(const AttentionArgs& args, const KvDescriptor& kv, const DecodeTask& task,
                        DecodeShared<kDim>& shared) {
  const auto warp = static_cast<int32_t>(threadIdx.x / 32);
  const uint32_t tiles = TilesOf(task.units);
  const uint32_t pieces = task.splits * kWarps;
  const uint32_t each = tiles / pieces;
  const uint32_t longer = tiles - each * pieces;  // pieces that are one tile longer, the first ones
  const uint32_t piece = task.split * kWarps + warp;
  const auto begin = static_cast<int32_t>(piece * each + min(piece, longer));
  const auto end = begin + static_cast<int32_t>(each + (piece < longer ? 1 : 0));
  {
    WarpAttention<T, kDim> attention(args, kv, task, shared);
    attention.Run(begin, end);
    __syncthreads();
    attention.Store(shared.outs[warp]);
  }
  __syncthreads();
  MergeWarps<T>(args, task, shared);
  if (task.splits > 1 && ArrivedLast(args, task, shared)) MergeSplits<T, kDim>(args, task);
  __syncthreads();
}

// A row that decode works on, as one lane of each warp knows it.
struct DecodeRow {
  int32_t row = 0;
  int32_t sequence = -1;
  int32_t position = 0;
  UnitRange units;
  int32_t splits = 0;  // 0 where there is no row
};

// The number-th of `rows` rows. Its splits follow from its own keys and from `number` alone.
__device__ DecodeRow RowOf(const AttentionArgs& args, const KvDescriptor& kv, const int32_t* list,
                           int32_t number, int32_t rows) {
  DecodeRow row;
  if (number >= rows) return row;
  row.row = list == nullptr ? number : list[number];
  row.sequence = args.params.row_sequences[row.row];
  row.position = args.params.positions[row.row];
  row.units = UnitsBetween(args, kv, row.sequence, StartOf(args, row.position), row.position);
  const DecodeSplits& splits = args.splits;
  const int32_t wanted =
      min(splits.max_splits,
          splits.min_tiles.Quotient(TilesOf(row.units) + splits.min_tiles.divisor() - 1));
  row.splits = (number + 1) * splits.max_splits > splits.slots ? 1 : max(1, wanted);
  return row;
}

// The sum over the lanes up to this one.
__device__ int32_t PrefixSum(int32_t value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

// The task of split number `split` of the rows that the lanes know; `before` splits are of rows of
// lower lanes.
__device__ DecodeTask TaskOf(const AttentionArgs& args, const DecodeRow& row, int32_t first_number,
                             int32_t before, int32_t split, int32_t chunk) {
  const bool mine = split >= before && split < before + row.splits;
  const int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, mine))) - 1;
  const auto of_owner = [&](int32_t value) { return __shfl_sync(kAllLanes, value, owner); };
  return {of_owner(row.row),
          of_owner(row.sequence),
          of_owner(row.position),
          {of_owner(row.units.begin), of_owner(row.units.end)},
          split - of_owner(before),
          of_owner(row.splits),
          (first_number + owner) * args.splits.max_splits,
          ChunkOf(args, chunk),
          chunk};
}

// Tasks are numbered by row, split and chunk, chunks fastest, and dealt to the blocks in turn.
// Every warp counts the tasks of all rows, a lane for each of 32 rows at a time.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads)
    DecodeKernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(128) std::byte memory[];
  auto& shared = *reinterpret_cast<DecodeShared<kDim>*>(memory);
  const KvDescriptor kv = *args.params.kv;
  const int32_t* list = args.plan.counts == nullptr ? nullptr : args.plan.decode_rows;
  const int32_t rows = list == nullptr ? static_cast<int32_t>(args.rows) : args.plan.counts[1];
  auto next = static_cast<int32_t>(blockIdx.x);
  for (int32_t first = 0; first < rows; first += 32) {
    const DecodeRow row =
        RowOf(args, kv, list, first + static_cast<int32_t>(threadIdx.x) % 32, rows);
    const int32_t through = PrefixSum(row.splits);
    const int32_t tasks = __shfl_sync(kAllLanes, through, 31) * args.all_chunks.divisor();
    for (; next < tasks; next += static_cast<int32_t>(gridDim.x)) {
      const int32_t split = args.all_chunks.Quotient(next);
      const int32_t chunk = next - split * args.all_chunks.divisor();
      const DecodeTask task = TaskOf(args, row, first, through - row.splits, split, chunk);
      RunTask<T, kDim>(args, kv, task, shared);
    }
    next -= tasks;
  }
}

template <typename T, int kDim>
CudaLaunch LaunchKernel(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  constexpr size_t kShared = sizeof(DecodeShared<kDim>);
  if (cudaFuncSetAttribute(DecodeKernel<T, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kShared) != cudaSuccess) {
    cudaGetLastError();  // a device with less shared memory, which has no prefill kernel either
    return LaunchPlainAttention(args, stream);
  }
  constexpr int kResident = std::max<int>(1, static_cast<int>(225 * 1024 / (kShared + 1024)));
  const int64_t most =
      args.rows * args.params.layout.kv_heads * args.chunks * std::max(1, args.splits.max_splits);
  const int64_t blocks = std::min<int64_t>(most, int64_t{multiprocessors} * std::min(kResident, 4));
  return Launch<DecodeKernel<T, kDim>>({.gridDim = static_cast<unsigned>(blocks),
                                        .blockDim = kThreads,
                                        .dynamicSmemBytes = kShared,
                                        .stream = stream},
                                       args);
}

template <typename T>
CudaLaunch LaunchForDim(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  const int32_t dim = args.params.layout.head_dim;
  if (dim <= 64) return LaunchKernel<T, 64>(args, multiprocessors, stream);
  if (dim <= 80) return LaunchKernel<T, 80>(args, multiprocessors, stream);
  if (dim <= 96) return LaunchKernel<T, 96>(args, multiprocessors, stream);
  if (dim <= 128) return LaunchKernel<T, 128>(args, multiprocessors, stream);
  return LaunchKernel<T, 256>(args, multiprocessors, stream);
}

}  // namespace
}  // namespace decode

CudaLaunch LaunchDecodeAttention(const AttentionArgs& args, int multiprocessors,
                                 CudaStream stream) {
  if (args.params.activation == DType::kBFloat16) {
    return decode::LaunchForDim<__nv_bfloat16>(args, multiprocessors, stream);
  }
  return decode::LaunchForDim<__half>(args, multiprocessors, stream);
}

}  // namespace muster
