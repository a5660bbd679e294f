#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_ALL_REDUCE_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_ALL_REDUCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "worker/collective/shm/shm_peers.h"
#include "worker/device/cpu/thread_pool.h"

namespace muster {

// Bytes from which on work is worth handing to another thread.
inline constexpr int64_t kShmParallelBytes = int64_t{32} << 10;

// memcpy by the threads of `pool`.
void ParallelCopy(ThreadPool& pool, void* to, const void* from, size_t bytes);

// receive[count] := sum over ranks of send[count], which may be the same memory. In one shot (every
// rank reads all and reduces all) or two (every rank reduces a slice and publishes it), by
// peers.InTwoShots(); the bits are the same.
absl::Status ShmAllReduce(ShmPeers& peers, ThreadPool& pool, const void* send, void* receive,
                          size_t count, DType dtype);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_ALL_REDUCE_H_
