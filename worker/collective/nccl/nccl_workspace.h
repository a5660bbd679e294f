#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_WORKSPACE_H_

#include "worker/collective/nccl/nccl_peers.h"
#include "worker/collective/workspace.h"

namespace muster {

// The collectives with what follows them, over NCCL: nothing is fused, but the sums are rounded as
// where it is, once. What is longer than the scratch goes in slices of tokens. `peers` outlives it,
// and has the ranks of `group`.
class NcclWorkspace final : public Workspace {
 public:
  NcclWorkspace(const Group& group, NcclPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override;
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }
  size_t bytes() const override { return peers_.bytes(); }
  uint64_t layout_digest() const override { return peers_.layout_digest(); }

 private:
  absl::Status ReduceSlice(const FusedAllReduceRmsNorm& op, size_t message_bytes,
                           CudaStream stream);
  absl::Status CombineSlice(const CpCombine& op, CudaStream stream);
  // Bytes of a slice of the heads for one rank, over all tokens of `op`.
  size_t PartBytes(const CpCombine& op) const;
  // Copies each rank's columns to its outbox, one after the other.
  absl::Status Pack(const CpCombine& op, CudaStream stream);
  absl::Status Merge(const CpCombine& op, CudaStream stream);

  const Group group_;
  NcclPeers& peers_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_WORKSPACE_H_
