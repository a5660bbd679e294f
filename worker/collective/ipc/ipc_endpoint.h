#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_ENDPOINT_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_ENDPOINT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/collective/collective_backend.h"
#include "worker/collective/ipc/ipc_peers.h"

namespace muster {

// A region of this rank and the mapped ones of its peers.
class IpcEndpoint final : public CollectiveEndpoint {
 public:
  // `device` and `ledger` outlive it.
  IpcEndpoint(const Group& group, CudaDevice& device, IpcMemory memory,
              const IpcPeers::Options& options, Ledger& ledger)
      : ledger_(ledger), peers_(group, device, std::move(memory), options) {}

  std::string Handle() const override { return peers_.Handle(); }
  absl::Status Open(const std::vector<std::string>& handles) override {
    return peers_.Open(handles);
  }
  void StopExporting() override { peers_.StopExporting(); }
  std::unique_ptr<Workspace> MakeWorkspace(const Group& group, Fusion fusion) override;
  std::unique_ptr<Communicator> MakeCommunicator(const Group& group) override;
  absl::StatusOr<uint64_t> MeasureTwoShotBytes(Stream& stream) override;
  void SetTwoShotBytes(uint64_t bytes) override { peers_.set_two_shot_bytes(bytes); }
  bool fuses() const override { return true; }
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  Ledger& ledger_;
  IpcPeers peers_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_ENDPOINT_H_
