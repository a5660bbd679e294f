#ifndef MUSTER_KERNELS_ADD_RMS_NORM_H_
#define MUSTER_KERNELS_ADD_RMS_NORM_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// residual_out = a + residual_in, rounded to its type; out = rms_norm(residual_out) * weight. The
// unfused sibling of AllReduceRmsNorm: in float32, after ReduceRanks into `a`, it gives bitwise the
// same results.
struct AddRmsNormParams {
  const void* a;            // [rows, hidden] in `activation`
  const void* residual_in;  // [rows, hidden] in `activation`, or null for none
  const float* weight;      // [hidden]
  float eps;
  int64_t hidden;
  void* residual_out;  // [rows, hidden] in `activation`, or null; may be a or residual_in
  void* out;  // [rows, hidden] in `activation`; may be a, but not residual_in or residual_out
  DType activation = DType::kFloat32;  // on the CPU always
};

void AddRmsNormReference(const AddRmsNormParams& params, IndexRange rows);
void AddRmsNormCpu(const AddRmsNormParams& params, IndexRange rows);
// cudaErrorInvalidValue when a row is longer than 64 KiB.
CudaLaunch AddRmsNormCuda(const AddRmsNormParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_ADD_RMS_NORM_H_
