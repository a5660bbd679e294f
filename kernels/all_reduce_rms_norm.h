#ifndef MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_
#define MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/index_range.h"
#include "kernels/reduce_ranks.h"

namespace muster {

// The arithmetic of the fused all-reduce + residual + RMS normalisation, once the ranks' partial
// sums can be read:
//   sum          = parts[0] + parts[1] + ...        in rank order, float32
//   residual_out = round_to_residual_dtype(sum + residual_in)
//   norm_out     = rms_norm(residual_out) * weight
// Every output element has one order of operations, whatever the row range, so all ranks get the
// same bits. With float32 residuals they are the bits of ReduceRanks followed by AddRmsNorm.
struct AllReduceRmsNormParams {
  const void* parts[kMaxReduceRanks];  // world pointers to [rows, hidden] in `dtype`
  int32_t world;                       // 1 to kMaxReduceRanks
  DType dtype;
  const void* residual_in;  // [rows, hidden] in `residual_dtype`, or null for none
  void* residual_out;       // [rows, hidden] in `residual_dtype`, or null; may be residual_in
  DType residual_dtype;
  const float* weight;  // [hidden]
  float eps;
  int64_t hidden;
  void* norm_out;  // [rows, hidden] in `norm_dtype`; overlaps nothing else
  DType norm_dtype;
};

void AllReduceRmsNormReference(const AllReduceRmsNormParams& params, IndexRange rows);
void AllReduceRmsNormCpu(const AllReduceRmsNormParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_
