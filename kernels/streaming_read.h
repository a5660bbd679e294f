#ifndef MUSTER_KERNELS_STREAMING_READ_H_
#define MUSTER_KERNELS_STREAMING_READ_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_launch.h"

namespace muster {

// Reads `bytes` of memory as fast as one thread can: the limit that whatever is bound by memory is
// held against. Four streams with prefetching, which is what reaches most; `bytes` is a multiple
// of 256. Returns a number that depends on every byte, so that none of it counts as unused.
size_t StreamingReadCpu(const std::byte* data, size_t bytes);

// The same by all of a device of that many multiprocessors; `data` is aligned to 16 bytes, and
// `seen` is where a number that depends on every byte may be written.
CudaLaunch StreamingReadCuda(const void* data, size_t bytes, uint32_t* seen, int multiprocessors,
                             CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_STREAMING_READ_H_
