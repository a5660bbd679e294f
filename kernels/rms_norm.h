#ifndef MUSTER_KERNELS_RMS_NORM_H_
#define MUSTER_KERNELS_RMS_NORM_H_

#include <cstdint>

#include "kernels/index_range.h"

namespace muster {

// Root mean square normalisation (Zhang and Sennrich, 2019):
//   out = x / sqrt(mean(x^2) + eps) * weight, row by row.
struct RmsNormParams {
  const float* x;       // [rows, hidden]
  const float* weight;  // [hidden]
  float eps;
  int64_t hidden;
  float* out;  // [rows, hidden]; may be x
};

void RmsNormReference(const RmsNormParams& params, IndexRange rows);
void RmsNormCpu(const RmsNormParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_RMS_NORM_H_
