// What the ranks of a list tell each other on one host beside NCCL, which carries no reasons: a
// page of each, that the others map.
#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PAGE_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PAGE_H_

#include <atomic>
#include <cstdint>

#include "kernels/peer_exchange.h"
#include "worker/collective/nccl/nccl_arrival.h"
#include "worker/collective/shm/shm_layout.h"

namespace muster {

struct NcclPage {
  uint64_t nonce = 0;                // see ShmHandle
  std::atomic<uint32_t> opening{0};  // the owner has begun to join
  std::atomic<uint32_t> gone{0};     // the owner has destroyed its end, in good order
  // Of the owner's device.
  alignas(kShmCacheLine) NcclArrivals arrivals{};
  // Why the owner's operations must fail.
  alignas(kShmCacheLine) ShmAbort abort;
};

static_assert(sizeof(NcclPage) <= kShmPage, "one page");
static_assert(kMaxPeers == kMaxShmRanks, "aborts name all ranks");

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PAGE_H_
