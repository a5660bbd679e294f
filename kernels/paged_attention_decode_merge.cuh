#ifndef MUSTER_KERNELS_PAGED_ATTENTION_DECODE_MERGE_CUH_
#define MUSTER_KERNELS_PAGED_ATTENTION_DECODE_MERGE_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention_cuda.cuh"
#include "kernels/paged_attention_decode_warp.cuh"

namespace muster::decode {

// The weights of the warps' results for `head`; returns the largest score and the sum.
template <int kDim>
__device__ float2 WeighWarps(const AttentionArgs& args, const DecodeShared<kDim>& shared, int head,
                             float (&weights)[kWarps]) {
  float max = -INFINITY;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) max = fmaxf(max, shared.outs[warp].max[head]);
  const float scale = args.score_scale * kLog2E;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    weights[warp] = Exp2((shared.outs[warp].max[head] - Shift(max)) * scale);
    sum += weights[warp] * shared.outs[warp].sum[head];
  }
  return make_float2(max, sum);
}

template <typename T>
__device__ void StoreQuad(const AttentionArgs& args, T* to, const float (&values)[4]) {
  if (args.aligned_out) {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(PackPair<T>(values[0], values[1]), PackPair<T>(values[2], values[3]));
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = CudaElement<T>::FromFloat(values[i]);
}

// Merges the warps' results into the row's output, or into the split's partial result.
template <typename T, int kDim>
__device__ void MergeWarps(const AttentionArgs& args, const DecodeTask& task,
                           const DecodeShared<kDim>& shared) {
  const int32_t head_dim = args.params.layout.head_dim;
  const bool whole = task.splits == 1;
  const int64_t slot = int64_t{task.slot + task.split} * args.params.heads;
  for (int i = static_cast<int>(threadIdx.x); i < task.chunk.heads * kDim / 4; i += kThreads) {
    const int head = i / (kDim / 4);
    const int column = i % (kDim / 4) * 4;
    const int32_t query_head = task.chunk.first_head + head;
    float weights[kWarps];
    const float2 sums = WeighWarps(args, shared, head, weights);
    float out[4] = {};
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const float4 part = *reinterpret_cast<const float4*>(&shared.outs[warp].out[head][column]);
      out[0] += weights[warp] * part.x;
      out[1] += weights[warp] * part.y;
      out[2] += weights[warp] * part.z;
      out[3] += weights[warp] * part.w;
    }
    if (column == 0 && whole) {
      *LseOf(args, task.row, query_head) = Lse(args, sums.x, sums.y);
    } else if (column == 0) {
      args.splits.partial_sums[slot + query_head] = sums;
    }
    if (column >= head_dim) continue;
    if (!whole) {
      *reinterpret_cast<float4*>(args.splits.partial_out + (slot + query_head) * head_dim +
                                 column) = make_float4(out[0], out[1], out[2], out[3]);
      continue;
    }
    const float norm = sums.y == 0 ? 0 : 1 / sums.y;
#pragma unroll
    for (float& value : out) value *= norm;
    StoreQuad<T>(args, OutOf<T>(args, task.row, query_head) + column, out);
  }
}

// Whether this block is the last of the row's splits to be done. Its threads then see what the
// others stored.
template <int kDim>
__device__ bool ArrivedLast(const AttentionArgs& args, const DecodeTask& task,
                            DecodeShared<kDim>& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t chunks = args.all_chunks.divisor();
    int32_t* arrivals = args.splits.arrivals + task.slot * chunks + task.chunk_number;
    int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(arrivals)
                 : "memory");
    shared.last = before == task.splits - 1;
    if (shared.last) *arrivals = 0;
  }
  __syncthreads();
  return shared.last;
}

// Four columns of a head, of the splits so far.
struct MergedQuad {
  float max = -INFINITY;
  float sum = 0;
  float out[4] = {};

  // Adds kCount splits, or `count` where that is less. All loads are under way at once.
  template <int kCount>
  __device__ void Add(const float2* sums, int64_t sums_stride, const float* outs,
                      int64_t outs_stride, int count, float scale) {
    float2 part_sums[kCount];
    float4 parts[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool there = i < count;
      part_sums[i] = there ? __ldcg(sums + i * sums_stride) : make_float2(-INFINITY, 0);
      parts[i] = there ? __ldcg(reinterpret_cast<const float4*>(outs + i * outs_stride))
                       : make_float4(0, 0, 0, 0);
    }
    float larger = max;
#pragma unroll
    for (int i = 0; i < kCount; ++i) larger = fmaxf(larger, part_sums[i].x);
    const float decay = Exp2((max - Shift(larger)) * scale);
    max = larger;
    sum *= decay;
#pragma unroll
    for (float& value : out) value *= decay;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float weight = Exp2((part_sums[i].x - Shift(larger)) * scale);
      sum += weight * part_sums[i].y;
      out[0] += weight * parts[i].x;
      out[1] += weight * parts[i].y;
      out[2] += weight * parts[i].z;
      out[3] += weight * parts[i].w;
    }
  }
};

// Merges the splits' results, in their order, into the row's output.
template <typename T, int kDim>
__device__ void MergeSplits(const AttentionArgs& args, const DecodeTask& task) {
  constexpr int kAtATime = 16;
  const int32_t head_dim = args.params.layout.head_dim;
  const int64_t heads = args.params.heads;
  for (int i = static_cast<int>(threadIdx.x); i < task.chunk.heads * kDim / 4; i += kThreads) {
    const int column = i % (kDim / 4) * 4;
    if (column >= head_dim) continue;
    const int32_t head = task.chunk.first_head + i / (kDim / 4);
    MergedQuad merged;
    for (int split = 0; split < task.splits; split += kAtATime) {
      const int64_t place = (task.slot + split) * heads + head;
      merged.Add<kAtATime>(args.splits.partial_sums + place, heads,
                           args.splits.partial_out + place * head_dim + column, heads * head_dim,
                           task.splits - split, args.score_scale * kLog2E);
    }
    if (column == 0) *LseOf(args, task.row, head) = Lse(args, merged.max, merged.sum);
    const float norm = merged.sum == 0 ? 0 : 1 / merged.sum;
#pragma unroll
    for (float& value : merged.out) value *= norm;
    StoreQuad<T>(args, OutOf<T>(args, task.row, head) + column, merged.out);
  }
}

}  // namespace muster::decode

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_DECODE_MERGE_CUH_
