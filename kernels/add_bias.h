#ifndef MUSTER_KERNELS_ADD_BIAS_H_
#define MUSTER_KERNELS_ADD_BIAS_H_

#include <cstdint>

#include "kernels/index_range.h"

namespace muster {

// y += bias, row by row, in place.
struct AddBiasParams {
  float* y;            // [rows, width]
  int64_t row_stride;  // of y, in elements
  int64_t width;
  const float* bias;  // [width]
};

void AddBiasReference(const AddBiasParams& params, IndexRange rows);
void AddBiasCpu(const AddBiasParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_ADD_BIAS_H_
