#ifndef MUSTER_KERNELS_REFERENCE_H_
#define MUSTER_KERNELS_REFERENCE_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace muster {

// Elements of arrays whose type is known at run time only, for the reference implementations.
inline float LoadElement(DType dtype, const void* array, int64_t index) {
  switch (dtype) {
    case DType::kBFloat16:
      return static_cast<float>(static_cast<const BFloat16*>(array)[index]);
    case DType::kFloat16:
      return static_cast<float>(static_cast<const Float16*>(array)[index]);
    case DType::kFloat32:
      break;
  }
  return static_cast<const float*>(array)[index];
}

// Rounds once, to nearest, ties to even.
inline void StoreElement(float value, DType dtype, void* array, int64_t index) {
  switch (dtype) {
    case DType::kBFloat16:
      static_cast<BFloat16*>(array)[index] = BFloat16(value);
      return;
    case DType::kFloat16:
      static_cast<Float16*>(array)[index] = Float16(value);
      return;
    case DType::kFloat32:
      static_cast<float*>(array)[index] = value;
      return;
  }
}

}  // namespace muster

#endif  // MUSTER_KERNELS_REFERENCE_H_
