#include "worker/collective/ipc/ipc_endpoint.h"

#include "worker/collective/ipc/ipc_communicator.h"
#include "worker/collective/ipc/ipc_switch_point.h"
#include "worker/collective/ipc/ipc_unfused_workspace.h"
#include "worker/collective/ipc/ipc_workspace.h"

namespace muster {

std::unique_ptr<Workspace> IpcEndpoint::MakeWorkspace(const Group& group, Fusion fusion) {
  if (fusion == Fusion::kFused) return std::make_unique<IpcWorkspace>(group, peers_);
  return std::make_unique<IpcUnfusedWorkspace>(group, peers_);
}

std::unique_ptr<Communicator> IpcEndpoint::MakeCommunicator(const Group& group) {
  return std::make_unique<IpcCommunicator>(group, peers_);
}

absl::StatusOr<uint64_t> IpcEndpoint::MeasureTwoShotBytes(Stream& stream) {
  return muster::MeasureTwoShotBytes(peers_, stream, ledger_);
}

}  // namespace muster
