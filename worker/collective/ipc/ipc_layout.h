#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_LAYOUT_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_LAYOUT_H_

#include "kernels/peer_exchange.h"
#include "worker/collective/workspace_plan.h"

namespace muster {

// What a rank exports for a plan, by its ranks and its longest message. One shot is for small
// messages, so its slots are capped: all of them have at most 16 MiB. Slices of two shots are
// capped at 32 MiB, and what is longer goes in several. A plan's slab fits both.
PeerLayout IpcLayoutOf(const WorkspacePlan& plan);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_LAYOUT_H_
