// Flash-decoding: the keys of a row are split over blocks, and within a block over its warps, each
// of which streams its keys through stages of its own. All query heads of a chunk are the rows of
// one matrix tile, so that a key is read once.

#include <algorithm>

#include "kernels/paged_attention_cuda.cuh"
#include "kernels/paged_attention_decode_merge.cuh"
#include "kernels/paged_attention_decode_warp.cuh"

namespace muster {
namespace decode {
namespace {

template <typename T, int kDim>
__device__ void RunTask(const AttentionArgs& args, const DecodeTask& task,
                        DecodeShared<kDim>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int32_t sequence = args.params.row_sequences[task.row];
  const int32_t position = args.params.positions[task.row];
  const LocalUnits units(args, sequence, WindowStart(args.params, position), position);
  const int64_t tiles = (units.count() + kTileUnits - 1) / kTileUnits;
  const int32_t pieces = task.splits * kWarps;
  const int32_t piece = task.split * kWarps + warp;
  {
    WarpAttention<T, kDim> attention(args, task, RangeOf(args, position), units,
                                     shared.stages[warp], shared.positions[warp]);
    attention.Run(task, static_cast<int32_t>(tiles * piece / pieces),
                  static_cast<int32_t>(tiles * (piece + 1) / pieces));
    __syncthreads();
    attention.Store(shared.outs[warp]);
  }
  __syncthreads();
  MergeWarps<T>(args, task, shared);
  if (task.splits > 1 && ArrivedLast(args, task, shared)) MergeSplits<T>(args, task, shared);
  __syncthreads();
}

// How many splits the number-th row of those that decode works on has. No other row matters.
__device__ int32_t SplitsOf(const AttentionArgs& args, int32_t row, int64_t number) {
  const DecodeSplits& splits = args.splits;
  if ((number + 1) * splits.max_splits > splits.slots) return 1;
  const int32_t position = args.params.positions[row];
  const LocalUnits units(args, args.params.row_sequences[row], WindowStart(args.params, position),
                         position);
  const int32_t tiles = (units.count() + kTileUnits - 1) / kTileUnits;
  return max(1, min(splits.max_splits, (tiles + splits.min_tiles - 1) / splits.min_tiles));
}

// The sum over the threads before this one; `*total` is that over all.
template <int kDim>
__device__ int32_t PrefixSum(int32_t value, DecodeShared<kDim>& shared, int32_t* total) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int32_t inclusive = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, inclusive, distance);
    if (lane >= distance) inclusive += other;
  }
  if (lane == 31) shared.scan[warp] = inclusive;
  __syncthreads();
  int32_t before = inclusive - value;
  *total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) before += shared.scan[i];
    *total += shared.scan[i];
  }
  return before;
}

// Tasks are numbered by row, split and chunk, chunks fastest, and dealt to the blocks in turn.
// Every block counts the tasks of all rows, kThreads rows at a time.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads)
    DecodeKernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(128) std::byte memory[];
  auto& shared = *reinterpret_cast<DecodeShared<kDim>*>(memory);
  const int32_t* list = args.plan.counts == nullptr ? nullptr : args.plan.decode_rows;
  const int64_t rows = list == nullptr ? args.rows : args.plan.counts[1];
  const int32_t chunks = args.params.layout.kv_heads * args.chunks;
  int64_t next = blockIdx.x;
  for (int64_t window = 0; window < rows; window += kThreads) {
    const int64_t number = window + threadIdx.x;
    const bool there = number < rows;
    const int32_t row = !there ? 0 : list == nullptr ? static_cast<int32_t>(number) : list[number];
    const int32_t splits = there ? SplitsOf(args, row, number) : 0;
    int32_t total;
    const int32_t before = PrefixSum(splits, shared, &total);
    for (; next < int64_t{total} * chunks; next += gridDim.x) {
      const auto split = static_cast<int32_t>(next / chunks);
      if (split >= before && split < before + splits) {
        shared.task[0] = static_cast<int32_t>(threadIdx.x);
        shared.task[1] = row;
        shared.task[2] = split - before;
        shared.task[3] = splits;
      }
      __syncthreads();
      const auto chunk = static_cast<int32_t>(next % chunks);
      const int64_t row_number = window + shared.task[0];
      const DecodeTask task{
          shared.task[1],       shared.task[2],
          shared.task[3],       static_cast<int32_t>(row_number * args.splits.max_splits),
          ChunkOf(args, chunk), chunk};
      RunTask<T, kDim>(args, task, shared);
    }
    next -= int64_t{total} * chunks;
    __syncthreads();
  }
}

template <typename T, int kDim>
CudaLaunch LaunchKernel(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  constexpr size_t kShared = sizeof(DecodeShared<kDim>);
  const cudaError_t error = cudaFuncSetAttribute(
      DecodeKernel<T, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return {static_cast<int>(error)};
  constexpr int kResident = std::max<int>(1, static_cast<int>(225 * 1024 / (kShared + 1024)));
  const int64_t most =
      args.rows * args.params.layout.kv_heads * args.chunks * std::max(1, args.splits.max_splits);
  const int64_t blocks = std::min<int64_t>(most, int64_t{multiprocessors} * std::min(kResident, 4));
  DecodeKernel<T, kDim><<<static_cast<unsigned>(blocks), kThreads, kShared, stream>>>(args);
  return LaunchResult();
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
