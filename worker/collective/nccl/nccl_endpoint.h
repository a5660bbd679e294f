#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ENDPOINT_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ENDPOINT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/collective/collective_backend.h"
#include "worker/collective/nccl/nccl_peers.h"

namespace muster {

// A communicator of NCCL and this rank's scratch.
class NcclEndpoint final : public CollectiveEndpoint {
 public:
  // As NcclPeers.
  NcclEndpoint(const Group& group, const NcclLibrary* nccl, CudaDevice& device, NcclMemory memory,
               const NcclPeers::Options& options)
      : peers_(group, nccl, device, std::move(memory), options) {}

  std::string Handle() const override { return peers_.Handle(); }
  absl::Status Open(const std::vector<std::string>& handles) override {
    return peers_.Open(handles);
  }
  void StopExporting() override { peers_.StopExporting(); }
  // Fused or not, it is the same: there is but one way.
  std::unique_ptr<Workspace> MakeWorkspace(const Group& group, Fusion fusion) override;
  std::unique_ptr<Communicator> MakeCommunicator(const Group& group) override;
  // Not measured: a second operation costs about the same everywhere.
  absl::StatusOr<uint64_t> MeasureTwoShotBytes(Stream& stream) override;
  void SetTwoShotBytes(uint64_t bytes) override { peers_.set_two_shot_bytes(bytes); }
  bool fuses() const override { return false; }
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  mutable NcclPeers peers_;  // makes the communicator's id when it is asked for a handle
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_ENDPOINT_H_
