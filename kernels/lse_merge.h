#ifndef MUSTER_KERNELS_LSE_MERGE_H_
#define MUSTER_KERNELS_LSE_MERGE_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

inline constexpr int kMaxMergePeers = 16;

// The arithmetic of the context-parallel combine: merges the peers' partial attention outputs by
// their natural-log LSE. For column i of the flattened heads x head_dim, h = i / head_dim:
//   m = max_w lse[w][h];   a_w = exp(lse[w][h] - m);   out[i] = sum_w a_w * parts[w][i] / sum_w a_w
// in rank order and float32. A peer with lse -infinity is left out, whatever its part holds; where
// all peers are, out is 0. `columns` is the slice of one rank and need not fall on heads.
struct LseMergeParams {
  const void* parts[kMaxMergePeers];  // world pointers to [rows, part_row_stride] in `activation`
  int64_t part_row_stride;
  int64_t part_column;               // the column that element 0 of a part's row holds
  const float* lse[kMaxMergePeers];  // world pointers to [rows, lse_row_stride], all heads
  int64_t lse_row_stride;
  int32_t world;  // 1 to kMaxMergePeers
  int64_t head_dim;
  IndexRange columns;  // of heads * head_dim
  void* out;           // [rows, out_row_stride] in `activation`; element 0 is column columns.begin
  int64_t out_row_stride;
  DType activation = DType::kFloat32;  // on the CPU always
};

void LseMergeReference(const LseMergeParams& params, IndexRange rows);
void LseMergeCpu(const LseMergeParams& params, IndexRange rows);
CudaLaunch LseMergeCuda(const LseMergeParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_LSE_MERGE_H_
