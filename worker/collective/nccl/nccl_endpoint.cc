#include "worker/collective/nccl/nccl_endpoint.h"

#include "worker/collective/nccl/nccl_communicator.h"
#include "worker/collective/nccl/nccl_workspace.h"

namespace muster {

std::unique_ptr<Workspace> NcclEndpoint::MakeWorkspace(const Group& group, Fusion) {
  return std::make_unique<NcclWorkspace>(group, peers_);
}

std::unique_ptr<Communicator> NcclEndpoint::MakeCommunicator(const Group& group) {
  return std::make_unique<NcclCommunicator>(group, peers_);
}

absl::StatusOr<uint64_t> NcclEndpoint::MeasureTwoShotBytes(Stream&) { return uint64_t{256} << 10; }

}  // namespace muster
