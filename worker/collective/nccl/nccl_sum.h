#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_SUM_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_SUM_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "worker/collective/nccl/nccl_peers.h"

namespace muster {

// out := sum over ranks of send, in rank order, then the residual; fp32, rounded once.
struct NcclSum {
  const void* send = nullptr;      // [count]
  const void* residual = nullptr;  // [count], the same on all ranks; null for none
  void* out = nullptr;             // [count]; may be one of those, or the first outbox
  size_t count = 0;
  DType dtype = DType::kFloat32;
};

// The most elements that one EnqueueSum takes. At least those of a slab.
size_t MostSummed(const NcclPeers& peers, size_t message_bytes, DType dtype);

// Inside an operation of `peers`, of several ranks. `message_bytes`, of all its pieces together,
// decides how: in one shot every rank gets everything and sums it, in two every rank sums a slice
// and gathers those of the others. The bits are the same.
absl::Status EnqueueSum(NcclPeers& peers, const NcclSum& sum, size_t message_bytes,
                        CudaStream stream);

// Sums what lies at `parts`, by rank, and the residual, if any, on this rank alone.
absl::Status EnqueueReduce(NcclPeers& peers, const void* const* parts, const void* residual,
                           void* out, size_t count, DType dtype, CudaStream stream);

inline const std::byte* Advance(const void* data, size_t bytes) {
  return data == nullptr ? nullptr : static_cast<const std::byte*>(data) + bytes;
}
inline std::byte* Advance(void* data, size_t bytes) {
  return data == nullptr ? nullptr : static_cast<std::byte*>(data) + bytes;
}

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_SUM_H_
