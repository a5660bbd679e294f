#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_SWITCH_POINT_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_SWITCH_POINT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/collective/ipc/ipc_peers.h"
#include "worker/device/ledger.h"

namespace muster {

// Collective. The message size from which on two shots are faster; at most what one shot can carry
// in one piece. Operands are charged to `ledger` while it runs. Errors as of IpcPeers and Device.
absl::StatusOr<uint64_t> MeasureTwoShotBytes(IpcPeers& peers, Stream& stream, Ledger& ledger);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_SWITCH_POINT_H_
