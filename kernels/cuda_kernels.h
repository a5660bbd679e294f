// The CUDA kernels of this program, whichever are linked, without CUDA's headers.
#ifndef MUSTER_KERNELS_CUDA_KERNELS_H_
#define MUSTER_KERNELS_CUDA_KERNELS_H_

#include <cstddef>

#include "kernels/cuda_launch.h"

namespace muster {

// Counts `kernel` among them, before main(): kernels/cuda_launch.cuh does so for all that it
// launches. Returns true.
bool RegisterCudaKernel(const void* kernel);

// How many there are.
size_t CudaKernelCount();

// Loads all of them into the current device; CUDA would load each at its first launch. Returns the
// first error.
CudaLaunch LoadCudaKernels();

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_KERNELS_H_
