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
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t chunks = int64_t{args.params.layout.kv_heads} * args.chunks;
    int32_t* arrivals = args.splits.arrivals + task.slot * chunks + task.chunk_number;
    shared.last = atomicAdd(arrivals, 1) == task.splits - 1;
    if (shared.last) *arrivals = 0;
  }
  __syncthreads();
  if (shared.last) __threadfence();
  return shared.last;
}

// Of all splits of the row: a lane takes one.
template <int kDim>
__device__ void WeighSplits(const AttentionArgs& args, const DecodeTask& task,
                            DecodeShared<kDim>& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float scale = args.score_scale * kLog2E;
  for (int head = static_cast<int>(threadIdx.x) / 32; head < task.chunk.heads; head += kWarps) {
    const int32_t query_head = task.chunk.first_head + head;
    float2 sums = make_float2(-INFINITY, 0);
    if (lane < task.splits) {
      sums = __ldcg(args.splits.partial_sums + int64_t{task.slot + lane} * args.params.heads +
                    query_head);
    }
    float max = sums.x;
    for (int i = 16; i > 0; i /= 2) max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, i));
    const float weight = Exp2((sums.x - Shift(max)) * scale);
    float sum = weight * sums.y;
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(kAllLanes, sum, i);
    shared.weights[head][lane] = weight;
    if (lane != 0) continue;
    shared.sums[head] = sum;
    *LseOf(args, task.row, query_head) = Lse(args, max, sum);
  }
  __syncthreads();
}

template <typename T, int kDim>
__device__ void MergeSplits(const AttentionArgs& args, const DecodeTask& task,
                            DecodeShared<kDim>& shared) {
  WeighSplits(args, task, shared);
  const int32_t head_dim = args.params.layout.head_dim;
  const int64_t split_stride = int64_t{args.params.heads} * head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < task.chunk.heads * kDim / 4; i += kThreads) {
    const int head = i / (kDim / 4);
    const int column = i % (kDim / 4) * 4;
    if (column >= head_dim) continue;
    const int32_t query_head = task.chunk.first_head + head;
    const float* from = args.splits.partial_out + task.slot * split_stride +
                        int64_t{query_head} * head_dim + column;
    float out[4] = {};
#pragma unroll 8
    for (int split = 0; split < task.splits; ++split) {
      const float4 part = __ldcg(reinterpret_cast<const float4*>(from + split * split_stride));
      const float weight = shared.weights[head][split];
      out[0] += weight * part.x;
      out[1] += weight * part.y;
      out[2] += weight * part.z;
      out[3] += weight * part.w;
    }
    const float norm = shared.sums[head] == 0 ? 0 : 1 / shared.sums[head];
#pragma unroll
    for (float& value : out) value *= norm;
    StoreQuad<T>(args, OutOf<T>(args, task.row, query_head) + column, out);
  }
}

}  // namespace muster::decode

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_DECODE_MERGE_CUH_
