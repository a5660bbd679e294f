// What a CUDA launcher takes and gives, without CUDA's headers.
#ifndef MUSTER_KERNELS_CUDA_LAUNCH_H_
#define MUSTER_KERNELS_CUDA_LAUNCH_H_

struct CUstream_st;

namespace muster {

// A cudaStream_t. All pointers in a launcher's parameters are memory that the device can reach.
using CudaStream = CUstream_st*;

// What a launcher says of enqueueing; kernels/cuda_status.h makes a Status of it.
struct [[nodiscard]] CudaLaunch {
  int error = 0;  // a cudaError_t, 0 for success

  bool ok() const { return error == 0; }
};

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_LAUNCH_H_
