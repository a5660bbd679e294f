#ifndef MUSTER_KERNELS_ADD_RMS_NORM_H_
#define MUSTER_KERNELS_ADD_RMS_NORM_H_

#include <cstdint>

#include "kernels/index_range.h"

namespace muster {

// residual_out = a + residual_in; out = rms_norm(residual_out) * weight. The unfused sibling of
// AllReduceRmsNorm: after ReduceRanks into `a` it gives bitwise the same results.
struct AddRmsNormParams {
  const float* a;            // [rows, hidden]
  const float* residual_in;  // [rows, hidden], or null for none
  const float* weight;       // [hidden]
  float eps;
  int64_t hidden;
  float* residual_out;  // [rows, hidden], or null; may be a or residual_in
  float* out;           // [rows, hidden]; may be a, but not residual_in or residual_out
};

void AddRmsNormReference(const AddRmsNormParams& params, IndexRange rows);
void AddRmsNormCpu(const AddRmsNormParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_ADD_RMS_NORM_H_
