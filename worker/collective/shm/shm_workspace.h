#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_WORKSPACE_H_

#include "worker/collective/shm/shm_peers.h"
#include "worker/collective/workspace.h"
#include "worker/device/cpu/thread_pool.h"

namespace muster {

// The fused collectives over shared memory. Messages beyond the slab go in slices of tokens, each
// in one shot or two as ShmAllReduce. `peers` outlives it, and has the ranks of `group`.
class ShmWorkspace final : public Workspace {
 public:
  ShmWorkspace(const Group& group, ShmPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override;
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }
  size_t bytes() const override;
  uint64_t layout_digest() const override { return peers_.layout_digest(); }

 private:
  absl::Status RunNow(ThreadPool& pool, const FusedAllReduceRmsNorm& op);
  absl::Status RunNow(ThreadPool& pool, const CpCombine& op);
  // One slice: `op` is already advanced to it.
  absl::Status ReduceSlice(ThreadPool& pool, const FusedAllReduceRmsNorm& op,
                           const CollectiveStamp& stamp);
  absl::Status FinishInTwoShots(ThreadPool& pool, const FusedAllReduceRmsNorm& op,
                                const CollectiveStamp& stamp);

  const Group group_;
  ShmPeers& peers_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_WORKSPACE_H_
