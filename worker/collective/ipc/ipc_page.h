// What the ranks of a list share on the host beside their device regions: a page of each, which its
// kernels read and write as well.
#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_PAGE_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_PAGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/peer_exchange.h"
#include "worker/collective/shm/shm_layout.h"

namespace muster {

struct IpcPage {
  uint64_t nonce = 0;   // see ShmHandle
  uint64_t layout = 0;  // digest of all that peers must agree on
  // Bits of kPeerAbort and PeerGone. Set by the peers' hosts, polled by the owner's kernels.
  alignas(kShmCacheLine) std::atomic<uint32_t> control{0};
  // Of the owner's kernels.
  alignas(kShmCacheLine) PeerFault fault{};
  // Why kPeerAbort is set; raised before it.
  alignas(kShmCacheLine) ShmAbort abort;
};

static_assert(sizeof(IpcPage) <= kShmPage, "one page");
static_assert(kMaxPeers == kMaxShmRanks, "aborts name all ranks");

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_PAGE_H_
