#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_COMMUNICATOR_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_COMMUNICATOR_H_

#include "worker/collective/communicator.h"
#include "worker/collective/ipc/ipc_peers.h"

namespace muster {

// The plain collectives over CUDA IPC. Messages beyond a slot go in pieces. `peers` outlives it,
// and has the ranks of `group`.
class IpcCommunicator final : public Communicator {
 public:
  IpcCommunicator(const Group& group, IpcPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) override;
  absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) override;
  absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                             DType dtype) override;
  absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) override;
  absl::Status Barrier(Stream& stream) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  const Group group_;
  IpcPeers& peers_;
};

// receive[count] := sum over ranks of send[count], which may be the same memory.
absl::Status IpcAllReduce(IpcPeers& peers, Stream& stream, const void* send, void* receive,
                          size_t count, DType dtype);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_COMMUNICATOR_H_
