#ifndef MUSTER_KERNELS_CONVERT_H_
#define MUSTER_KERNELS_CONVERT_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// to[i] = from[i], rounded as kernels/dtype.h says; elements of one type keep their bits.
struct ElementConversion {
  const void* from;
  DType from_dtype;
  void* to;  // does not overlap `from`
  DType to_dtype;
};

// Bitwise equal (a NaN stays one).
void ConvertReference(const ElementConversion& params, IndexRange elements);
CudaLaunch ConvertCuda(const ElementConversion& params, int64_t count, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_CONVERT_H_
