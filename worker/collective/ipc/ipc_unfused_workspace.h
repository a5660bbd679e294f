#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_UNFUSED_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_UNFUSED_WORKSPACE_H_

#include "worker/collective/ipc/ipc_peers.h"
#include "worker/collective/ipc/ipc_workspace.h"

namespace muster {

// The same operations as a plain all-reduce, rounded to the type of the operation, and what follows
// it: to compare with, and to fall back to. In float32 the bits are those of the fused ones. The CP
// combine has no unfused form. `peers` outlives it, and has the ranks of `group`.
class IpcUnfusedWorkspace final : public Workspace {
 public:
  IpcUnfusedWorkspace(const Group& group, IpcPeers& peers)
      : group_(group), peers_(peers), fused_(group, peers) {}

  const Group& group() const override { return group_; }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override;
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override {
    return fused_.Enqueue(stream, op);
  }
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }
  size_t bytes() const override { return peers_.bytes(); }
  uint64_t layout_digest() const override { return peers_.layout_digest(); }

 private:
  const Group group_;
  IpcPeers& peers_;
  IpcWorkspace fused_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_UNFUSED_WORKSPACE_H_
