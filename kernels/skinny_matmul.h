#ifndef MUSTER_KERNELS_SKINNY_MATMUL_H_
#define MUSTER_KERNELS_SKINNY_MATMUL_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// y = x W^T for few rows of x: the weights stream from memory once, whatever `rows` is. Meant for
// 1 to 32 rows; more are right, only slower than a blocked GEMM. Accumulates in float32.
// An element of y depends on its row of x and its row of W alone, bit for bit: not on the other
// rows of the batch, nor on the range of columns.
struct SkinnyMatmulParams {
  const void* x;  // [rows, k] in ActivationDType(dtype)
  int64_t x_row_stride;
  const void* weights;  // [n, k] in `dtype`
  int64_t weights_row_stride;
  DType dtype;
  int64_t rows;
  int64_t k;
  float* y;  // [rows, n]
  int64_t y_row_stride;
};

// The element type that x must have: bfloat16 beside bfloat16 weights, as matrix units multiply,
// else float32.
constexpr DType ActivationDType(DType weights) {
  return weights == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
}

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
void SkinnyMatmulCpu(const SkinnyMatmulParams& params, IndexRange columns);

}  // namespace muster

#endif  // MUSTER_KERNELS_SKINNY_MATMUL_H_
