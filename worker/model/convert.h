#ifndef MUSTER_WORKER_MODEL_CONVERT_H_
#define MUSTER_WORKER_MODEL_CONVERT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace muster {

// Writes `count` elements of `from` as `to_dtype`, rounding to nearest, ties to even. `from` need
// not be aligned; `to` is aligned to its element.
void ConvertElements(const std::byte* from, DType from_dtype, void* to, DType to_dtype,
                     int64_t count);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CONVERT_H_
