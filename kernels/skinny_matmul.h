#ifndef MUSTER_KERNELS_SKINNY_MATMUL_H_
#define MUSTER_KERNELS_SKINNY_MATMUL_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// The element type that x has on the CPU: bfloat16 beside bfloat16 weights, as matrix units
// multiply, else float32.
constexpr DType ActivationDType(DType weights) {
  return weights == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
}

// y = x W^T + bias for few rows of x. Accumulates in float32 and rounds once. An element of y
// depends on its row of x and its row of W alone, bit for bit: not on the other rows of the batch,
// nor on the range of columns.
struct SkinnyMatmulParams {
  const void* x;  // [rows, k] in x_dtype
  int64_t x_row_stride;
  const void* weights;  // [n, k] in `dtype`
  int64_t weights_row_stride;
  DType dtype;
  int64_t rows;
  int64_t k;
  void* y;  // [rows, n] in y_dtype
  int64_t y_row_stride;
  DType x_dtype = ActivationDType(dtype);  // on CUDA `dtype`
  DType y_dtype = DType::kFloat32;         // on CUDA float32 or `dtype`
  const float* bias = nullptr;             // [n], or null; on the CPU always null
};

// Rounds x to bfloat16, to nearest, ties to even: makes the operand of bfloat16 weights.
struct RoundActivationsParams {
  const float* x;  // [rows, k]
  int64_t x_row_stride;
  int64_t k;
  BFloat16* out;  // [rows, k]
  int64_t out_row_stride;
};

void RoundActivationsReference(const RoundActivationsParams& params, IndexRange rows);
void RoundActivationsCpu(const RoundActivationsParams& params, IndexRange rows);

// Computes y[:, columns] of all rows; `columns` are rows of the weights.
void SkinnyMatmulReference(const SkinnyMatmulParams& params, IndexRange columns);
// The weights stream from memory once for 1 to 32 rows; more are right, only slower than a blocked
// GEMM.
void SkinnyMatmulCpu(const SkinnyMatmulParams& params, IndexRange columns);

// Computes y of all rows and of `n` columns on a device of that many multiprocessors. The weights
// stream from memory once for every 8 rows, fast where they are of a 16-bit type, x and W start at
// multiples of 16 bytes, and their strides and k are multiples of 8 elements. W is read ahead of
// the kernel before this one on the stream: that one must not be what writes it.
CudaLaunch SkinnyMatmulCuda(const SkinnyMatmulParams& params, int64_t n, int multiprocessors,
                            CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_SKINNY_MATMUL_H_
