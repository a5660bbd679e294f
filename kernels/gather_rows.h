#ifndef MUSTER_KERNELS_GATHER_ROWS_H_
#define MUSTER_KERNELS_GATHER_ROWS_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// out[i] = x[index[i]], bit by bit.
struct RowGatherParams {
  const void* x;         // [rows, hidden] in `dtype`
  const int32_t* index;  // [outputs], each a row of x; read at run time
  int64_t hidden;
  void* out;  // [outputs, hidden] in `dtype`; does not overlap x
  DType dtype;
};

void GatherRowsReference(const RowGatherParams& params, IndexRange outputs);
CudaLaunch GatherRowsCuda(const RowGatherParams& params, int64_t outputs, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_GATHER_ROWS_H_
