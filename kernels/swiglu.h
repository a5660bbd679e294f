#ifndef MUSTER_KERNELS_SWIGLU_H_
#define MUSTER_KERNELS_SWIGLU_H_

#include <cstdint>

#include "kernels/index_range.h"

namespace muster {

// out = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer, 2020).
struct SwiGluParams {
  const float* gate_up;  // [rows, 2 * width]: gate first, then up
  int64_t row_stride;    // of gate_up, in elements
  int64_t width;
  float* out;  // [rows, width]
  int64_t out_row_stride;
};

void SwiGluReference(const SwiGluParams& params, IndexRange rows);
void SwiGluCpu(const SwiGluParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_SWIGLU_H_
