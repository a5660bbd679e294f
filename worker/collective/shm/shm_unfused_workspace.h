#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_UNFUSED_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_UNFUSED_WORKSPACE_H_

#include "worker/collective/shm/shm_peers.h"
#include "worker/collective/shm/shm_workspace.h"
#include "worker/collective/workspace.h"
#include "worker/device/cpu/thread_pool.h"

namespace muster {

// The fused norm made of plain parts: all-reduce, then residual and norm. In float32 it gives the
// bits of ShmWorkspace, which is tested and measured against it. The CP combine is the same.
// `peers` outlives it, and has the ranks of `group`.
class ShmUnfusedWorkspace final : public Workspace {
 public:
  ShmUnfusedWorkspace(const Group& group, ShmPeers& peers)
      : peers_(peers), combine_(group, peers) {}

  const Group& group() const override { return combine_.group(); }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override;
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override {
    return combine_.Enqueue(stream, op);
  }
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }
  size_t bytes() const override { return combine_.bytes(); }
  uint64_t layout_digest() const override { return peers_.layout_digest(); }

 private:
  absl::Status RunNow(ThreadPool& pool, const FusedAllReduceRmsNorm& op);

  ShmPeers& peers_;
  ShmWorkspace combine_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_UNFUSED_WORKSPACE_H_
