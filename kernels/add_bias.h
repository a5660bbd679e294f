#ifndef MUSTER_KERNELS_ADD_BIAS_H_
#define MUSTER_KERNELS_ADD_BIAS_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// y += bias, row by row, in place: the sum is rounded to float32 and then to y's type.
struct AddBiasParams {
  void* y;             // [rows, width] in `dtype`
  int64_t row_stride;  // of y, in elements
  int64_t width;
  const float* bias;              // [width]
  DType dtype = DType::kFloat32;  // on the CPU always
};

// All are bitwise equal.
void AddBiasReference(const AddBiasParams& params, IndexRange rows);
void AddBiasCpu(const AddBiasParams& params, IndexRange rows);
CudaLaunch AddBiasCuda(const AddBiasParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_ADD_BIAS_H_
