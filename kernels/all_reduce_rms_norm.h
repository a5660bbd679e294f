#ifndef MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_
#define MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"
#include "kernels/peer_exchange.h"
#include "kernels/reduce_ranks.h"

namespace muster {

// The arithmetic of the fused all-reduce + residual + RMS normalisation, once the ranks' partial
// sums can be read:
//   sum          = parts[0] + parts[1] + ...        in rank order, float32
//   residual_out = round_to_residual_dtype(sum + residual_in)
//   norm_out     = rms_norm(residual_out) * weight
// Every output element has one order of operations, whatever the row range, so all ranks get the
// same bits. With float32 residuals they are the bits of ReduceRanks followed by AddRmsNorm.
struct AllReduceRmsNormParams {
  const void* parts[kMaxReduceRanks];  // world pointers to [rows, hidden] in `dtype`
  int32_t world;                       // 1 to kMaxReduceRanks
  DType dtype;
  const void* residual_in;  // [rows, hidden] in `residual_dtype`, or null for none
  void* residual_out;       // [rows, hidden] in `residual_dtype`, or null; may be residual_in
  DType residual_dtype;
  const float* weight;  // [hidden]
  float eps;
  int64_t hidden;
  void* norm_out;  // [rows, hidden] in `norm_dtype`; overlaps nothing else
  DType norm_dtype;
};

void AllReduceRmsNormReference(const AllReduceRmsNormParams& params, IndexRange rows);
void AllReduceRmsNormCpu(const AllReduceRmsNormParams& params, IndexRange rows);

// The whole of it on the devices of several ranks, in residual_out's bits as above and with the
// squares of a row in one order: all ranks get the same bits, in one shot and in two, whatever the
// grid. Everything is of `dtype` but the weight. residual_in is the same on all ranks.
struct AllReduceRmsNormCudaParams {
  Peers peers;
  PeerStamp stamp;
  const void* partial;      // [rows, hidden], this rank's summand
  const void* residual_in;  // [rows, hidden], or null for none
  const float* weight;      // [hidden]
  float eps;
  int64_t hidden;
  void* residual_out;  // [rows, hidden], or null; may be residual_in
  void* norm_out;      // [rows, hidden]; overlaps nothing else
  DType dtype;
  // In one shot: 1, 2, 4 or 8, of which the device may allow fewer; 0 leaves it to the launcher.
  int32_t blocks_per_row = 0;
};

// Bytes of a slot that a message takes in one shot, and of a slice in two.
int64_t OneShotBytes(int64_t rows, int64_t hidden, DType dtype);
int64_t TwoShotBytes(int64_t rows, int64_t hidden, DType dtype, int world);

// One shot: every rank pushes its summand to all and reduces everything. Two: every rank reduces a
// slice of every row and pushes it to all. cudaErrorInvalidValue when the message is longer than
// the slot or the slice, or a row than 64 KiB for each block that may share it: in one shot at most
// peers.max_row_blocks, in two one.
CudaLaunch AllReduceRmsNormOneShotCuda(const AllReduceRmsNormCudaParams& params, int64_t rows,
                                       CudaStream stream);
CudaLaunch AllReduceRmsNormTwoShotCuda(const AllReduceRmsNormCudaParams& params, int64_t rows,
                                       CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_ALL_REDUCE_RMS_NORM_H_
