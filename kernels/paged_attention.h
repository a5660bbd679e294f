#ifndef MUSTER_KERNELS_PAGED_ATTENTION_H_
#define MUSTER_KERNELS_PAGED_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/index_range.h"
#include "kernels/kv_descriptor.h"

namespace muster {

inline constexpr int kMaxHeadDim = 256;

// Causal attention of query rows over the part of the paged KV cache that this rank holds. A row
// at position p attends to the local keys at positions <= p, its own included, which must have
// been written. With a sliding window (Beltagy et al., 2020) it attends to those in
// (p - window, p] alone. Query head h reads KV head h / (heads / kv_heads).
//   s = scale * q . k;   lse = ln(sum exp(s));   out = sum exp(s - lse) * v
// `out` is normalised over the local keys; partial results of the ranks merge by lse (LseMerge).
// Where a row has no local key in its window, or is padding (row_sequences -1), out is 0 and lse is
// -infinity.
//
// Decode and prefill are one operation: rows of one sequence that follow each other share the
// reading of its blocks. The bits of a row do not depend on its neighbours, nor on the ranges.
struct PagedAttentionParams {
  const void* q;  // [rows, heads * head_dim] in `activation`
  int64_t q_row_stride;
  int32_t heads;                 // query heads of this rank; a multiple of layout.kv_heads
  const int32_t* positions;      // [rows]
  const int32_t* row_sequences;  // [rows]: slot of the block tables, or -1
  const KvDescriptor* kv;        // read at run time
  KvLayout layout;               // head_dim 1 to kMaxHeadDim
  KvOwnership ownership;
  int32_t layer;  // of this rank's arena
  float scale;    // usually 1 / sqrt(head_dim)
  void* out;      // [rows, heads * head_dim] in `activation`; does not overlap q
  int64_t out_row_stride;
  float* lse;  // [rows, heads], natural logarithm
  int64_t lse_row_stride;
  int64_t window = 0;                  // positions that a row attends to, its own included; 0: all
  DType activation = DType::kFloat32;  // of q and out; on the CPU always
};

// Memory of the device in which PagedAttentionCuda keeps what its blocks tell each other, 256-byte
// aligned. Its owner fills it with zeros once; launches of the same heads and layout that follow
// each other share it.
struct PagedAttentionScratch {
  void* data;
  size_t bytes;
};

// The first position that a row at `position` attends to.
constexpr int64_t WindowStart(const PagedAttentionParams& params, int64_t position) {
  return params.window == 0 || position < params.window ? 0 : position - params.window + 1;
}

// Works on rows x heads. A range of heads that covers whole KV groups reads each key once; in
// decode, where rows are few, the caller splits the heads over its threads.
void PagedAttentionReference(const PagedAttentionParams& params, IndexRange rows, IndexRange heads);
void PagedAttentionCpu(const PagedAttentionParams& params, IndexRange rows, IndexRange heads);

// What steps of up to max_rows rows need, of params' shapes; its pointers are not looked at.
size_t PagedAttentionScratchBytes(const PagedAttentionParams& params, int64_t max_rows,
                                  int multiprocessors);

// On a device with `multiprocessors` multiprocessors for this process. Fast where activations and
// KV are of one 16-bit type and head_dim and block_size are multiples of 8, which wants an arena
// aligned to 16 bytes; plain float32 arithmetic everywhere else. Bits are the same from run to run;
// they depend on the number of rows, and on how rows follow each other, by rounding only. Values of
// later positions of its own sequence, in the same step, must be finite for a row's to be. Fails
// with cudaErrorInvalidValue where scratch is too small.
CudaLaunch PagedAttentionCuda(const PagedAttentionParams& params, int64_t rows,
                              const PagedAttentionScratch& scratch, int multiprocessors,
                              CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_H_
