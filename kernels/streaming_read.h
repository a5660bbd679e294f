#ifndef MUSTER_KERNELS_STREAMING_READ_H_
#define MUSTER_KERNELS_STREAMING_READ_H_

#include <cstddef>

namespace muster {

// Reads `bytes` of memory as fast as one thread can: the limit that whatever is bound by memory is
// held against. Four streams with prefetching, which is what reaches most; `bytes` is a multiple
// of 256. Returns a number that depends on every byte, so that none of it counts as unused.
size_t StreamingReadCpu(const std::byte* data, size_t bytes);

}  // namespace muster

#endif  // MUSTER_KERNELS_STREAMING_READ_H_
