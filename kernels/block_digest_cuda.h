// Digests of KV blocks on the device, those of BlockDigest on the host.
#ifndef MUSTER_KERNELS_BLOCK_DIGEST_CUDA_H_
#define MUSTER_KERNELS_BLOCK_DIGEST_CUDA_H_

#include <cstdint>

#include "kernels/cuda_launch.h"

namespace muster {

constexpr int kDigestLanes = 8;

// For each b, the sums of BlockDigest's lanes over block b, which on its way may be copied. The
// arrays of pointers are read at run time; the blocks that they name are aligned to 16 bytes and
// may be memory of a peer. No target overlaps a source or another target.
struct BlockDigestParams {
  const void* const* from;  // [blocks]
  void* const* to;          // [blocks], or null: nothing is copied
  int64_t blocks;           // at most 65535
  int64_t block_bytes;      // a multiple of 64, as blocks of KV caches are in practice
  uint64_t* lanes;          // [blocks, kDigestLanes], what they held before is lost
};

// Refuses, as cudaErrorInvalidValue, other sizes than these.
CudaLaunch BlockDigestCuda(const BlockDigestParams& params, CudaStream stream);

// BlockDigest::value() of a block of so many bytes whose lanes these are. On the host.
uint64_t FoldDigestLanes(const uint64_t* lanes, int64_t block_bytes);

}  // namespace muster

#endif  // MUSTER_KERNELS_BLOCK_DIGEST_CUDA_H_
