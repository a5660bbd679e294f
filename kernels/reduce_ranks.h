#ifndef MUSTER_KERNELS_REDUCE_RANKS_H_
#define MUSTER_KERNELS_REDUCE_RANKS_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// The largest group that reduces by reading every peer's buffer.
inline constexpr int kMaxReduceRanks = 16;

// out[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ... : in rank order, accumulated in
// float32 and rounded once, so every rank that computes it gets the same bits. The sum of one rank
// is a copy, -0 included; elsewhere zeros, subnormals, infinities and NaN are as IEEE adds them.
struct ReduceRanksParams {
  // world pointers to [elements] in `dtype`; the last one may be a residual.
  const void* parts[kMaxReduceRanks + 1];
  int32_t world;  // 1 to kMaxReduceRanks + 1
  DType dtype;
  void* out;  // [elements] in `out_dtype`; may be one of parts when the dtypes are equal
  DType out_dtype;
};

void ReduceRanksReference(const ReduceRanksParams& params, IndexRange elements);
void ReduceRanksCpu(const ReduceRanksParams& params, IndexRange elements);
CudaLaunch ReduceRanksCuda(const ReduceRanksParams& params, int64_t elements, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_REDUCE_RANKS_H_
