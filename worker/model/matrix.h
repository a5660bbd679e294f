#ifndef MUSTER_WORKER_MODEL_MATRIX_H_
#define MUSTER_WORKER_MODEL_MATRIX_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace muster {

// A weight as every backend keeps it: y = x W^T, W row-major [n, k], its rows packed.
struct Matrix {
  const void* data = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  DType dtype = DType::kFloat32;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MATRIX_H_
