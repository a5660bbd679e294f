#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_COMMUNICATOR_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_COMMUNICATOR_H_

#include "worker/collective/communicator.h"
#include "worker/collective/shm/shm_peers.h"
#include "worker/device/cpu/thread_pool.h"

namespace muster {

// The plain collectives over shared memory. Messages beyond the slab go in pieces. `peers` outlives
// it, and has the ranks of `group`.
class ShmCommunicator final : public Communicator {
 public:
  ShmCommunicator(const Group& group, ShmPeers& peers) : group_(group), peers_(peers) {}

  const Group& group() const override { return group_; }
  absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) override;
  absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) override;
  absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                             DType dtype) override;
  absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) override;
  absl::Status Barrier(Stream& stream) override;
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  absl::Status GatherNow(ThreadPool& pool, const std::byte* send, std::byte* receive, size_t bytes);
  absl::Status ScatterNow(const std::byte* send, std::byte* receive, size_t count, DType dtype);
  absl::Status BroadcastNow(ThreadPool& pool, std::byte* data, size_t bytes, GroupRank root);

  const Group group_;
  ShmPeers& peers_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_COMMUNICATOR_H_
