#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMMUNICATOR_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMMUNICATOR_H_

#include "worker/collective/communicator.h"
#include "worker/collective/nccl/nccl_peers.h"

namespace muster {

// The plain collectives over NCCL. What is summed goes in pieces that fit the scratch. `peers`
// outlives it, and has the ranks of `group`.
class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Group& group, NcclPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) override;
  absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) override;
  absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                             DType dtype) override;
  absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) override;
  absl::Status Barrier(Stream& stream) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  absl::Status ScatterPiece(const void* send, void* receive, size_t stride_bytes, size_t count,
                            DType dtype, CudaStream stream);

  const Group group_;
  NcclPeers& peers_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMMUNICATOR_H_
