#ifndef MUSTER_KERNELS_CP_COMBINE_H_
#define MUSTER_KERNELS_CP_COMBINE_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/peer_exchange.h"

namespace muster {

// The context-parallel combine on the devices of several ranks: rank c gets slice c of the
// flattened heads x head_dim outputs of all ranks, merged by their natural-log LSE as lse_merge.h
// says, rounded to `dtype`. The number of ranks divides heads * head_dim; slices need not fall on
// heads.
struct CpCombineCudaParams {
  Peers peers;
  PeerStamp stamp;
  const void* partial;  // [rows, heads * head_dim] in dtype, over this rank's keys
  const float* lse;     // [rows, heads]; -inf where the rank held no key
  void* out;            // [rows, heads * head_dim / world] in dtype
  int32_t heads;
  int32_t head_dim;
  DType dtype;
};

// Bytes of a slot that a message takes.
int64_t CpCombineBytes(int64_t rows, int32_t heads, int32_t head_dim, DType dtype, int world);

// cudaErrorInvalidValue when the message is longer than the slot, cannot be cut into equal slices,
// or has more than 48 KiB of LSE a row.
CudaLaunch CpCombineCuda(const CpCombineCudaParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_CP_COMBINE_H_
