#ifndef MUSTER_KERNELS_ROPE_KV_H_
#define MUSTER_KERNELS_ROPE_KV_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/index_range.h"
#include "kernels/kv_descriptor.h"

namespace muster {

// Rotary embedding (Su et al., 2021) of q and k in the half-split layout of Hugging Face models,
// in place, then k and v rounded to the KV dtype and written to the paged cache. Where there are
// weights for it, each head of q and k is RMS-normalised first (Dehghani et al., 2023):
//   x       = x / sqrt(mean(x^2) + eps) * norm
//   x'[i]     = x[i] * cos[i] - x[i + d/2] * sin[i]
//   x'[i+d/2] = x[i + d/2] * cos[i] + x[i] * sin[i]        for i < d/2, d = head_dim (even)
// Every row is rotated; k and v are written only where this rank owns the block of the row's
// position. A row whose row_sequences is -1 is padding: nothing of it is read or written.
struct RopeKvParams {
  void* qkv;           // [rows, (heads + 2 * kv_heads) * head_dim] in `activation`: q, k, v heads
  int64_t row_stride;  // of qkv, in elements
  int32_t heads;       // query heads of this rank
  const int32_t* positions;      // [rows], each in [0, max_position)
  const int32_t* row_sequences;  // [rows]: slot of the block tables, or -1
  const float* cos;              // [max_position, head_dim / 2]
  const float* sin;              // [max_position, head_dim / 2]
  const KvDescriptor* kv;        // read at run time
  KvLayout layout;
  KvOwnership ownership;
  int32_t layer;                  // of this rank's arena
  const float* q_norm = nullptr;  // [head_dim], of every query head; null: q is not normalised
  const float* k_norm = nullptr;  // [head_dim], likewise
  float norm_eps = 0;
  DType activation = DType::kFloat32;  // of qkv; on the CPU always
};

void RopeKvReference(const RopeKvParams& params, IndexRange rows);
void RopeKvCpu(const RopeKvParams& params, IndexRange rows);
CudaLaunch RopeKvCuda(const RopeKvParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_ROPE_KV_H_
