#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_WORKSPACE_H_

#include "worker/collective/ipc/ipc_peers.h"
#include "worker/collective/workspace.h"

namespace muster {

// The fused collectives over CUDA IPC. Messages beyond a slot, or a slice in two shots, go in
// slices of tokens. `peers` outlives it, and has the ranks of `group`.
class IpcWorkspace final : public Workspace {
 public:
  IpcWorkspace(const Group& group, IpcPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override;
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }
  size_t bytes() const override { return peers_.bytes(); }
  uint64_t layout_digest() const override { return peers_.layout_digest(); }

 private:
  absl::Status EnqueueSlice(Stream& stream, const FusedAllReduceRmsNorm& op, bool two_shots,
                            const CollectiveStamp& stamp);
  absl::Status CombineAlone(Stream& stream, const CpCombine& op, const CollectiveStamp& stamp);

  const Group group_;
  IpcPeers& peers_;
};

// What follows an all-reduce into norm_out: the residual and the norm, by this rank alone.
CudaLaunch IpcAddRmsNorm(const FusedAllReduceRmsNorm& op, const void* sum, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_WORKSPACE_H_
