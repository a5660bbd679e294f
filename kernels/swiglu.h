#ifndef MUSTER_KERNELS_SWIGLU_H_
#define MUSTER_KERNELS_SWIGLU_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// out = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer, 2020).
struct SwiGluParams {
  const void* gate_up;  // [rows, 2 * width] in `activation`: gate first, then up
  int64_t row_stride;   // of gate_up, in elements
  int64_t width;
  void* out;  // [rows, width] in `activation`
  int64_t out_row_stride;
  DType activation = DType::kFloat32;  // on the CPU always
};

void SwiGluReference(const SwiGluParams& params, IndexRange rows);
void SwiGluCpu(const SwiGluParams& params, IndexRange rows);
CudaLaunch SwiGluCuda(const SwiGluParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_SWIGLU_H_
