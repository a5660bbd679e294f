#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_PEERS_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_PEERS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "kernels/cuda_launch.h"
#include "kernels/peer_exchange.h"
#include "worker/collective/collective_stamp.h"
#include "worker/collective/group.h"
#include "worker/collective/ipc/ipc_memory.h"
#include "worker/device/cuda/cuda_stream.h"

namespace muster {

// What every collective over CUDA IPC is made of: it hands kernels the regions of all ranks of one
// ordered list, and makes statuses of what they report. Operations of all that share the peers are
// one sequence, the same on all ranks, enqueued by one thread at a time on one stream at a time.
// Abort may come from any thread.
class IpcPeers {
 public:
  struct Options {
    PeerLayout layout;
    absl::Duration wait_timeout = absl::Seconds(10);  // of one operation
    Logger log;
  };

  // `device` outlives it.
  IpcPeers(const Group& group, CudaDevice& device, IpcMemory memory, const Options& options);
  IpcPeers(const IpcPeers&) = delete;
  IpcPeers& operator=(const IpcPeers&) = delete;
  // Tells those who wait for this rank that it is gone. Waits for nobody; nothing that was enqueued
  // may be running.
  ~IpcPeers();

  // Opaque to others; see Open.
  std::string Handle() const;
  // Once, before the first operation: every rank's handle by group rank. UNAVAILABLE names the rank
  // that cannot be opened, FAILED_PRECONDITION one whose layout is another; the reason of an Abort
  // that came before.
  absl::Status Open(const std::vector<std::string>& handles);
  void StopExporting() { memory_.StopExporting(); }

  const Group& group() const { return group_; }
  int size() const { return group_.size(); }
  int rank() const { return group_.rank().value(); }
  const PeerLayout& layout() const { return options_.layout; }
  uint64_t layout_digest() const { return layout_digest_; }
  size_t bytes() const { return memory_.bytes(); }
  CudaDevice& device() const { return device_; }

  using Launch = absl::FunctionRef<CudaLaunch(const Peers&, const PeerStamp&, CudaStream)>;
  // Enqueues what `launch` launches: one operation of all ranks, which they must stamp equally. The
  // reason of an abort that was; INVALID_ARGUMENT when the launcher refuses. What fails later comes
  // from the stream's Synchronize, and aborts all ranks: DEADLINE_EXCEEDED names the ranks that did
  // not come, FAILED_PRECONDITION the ranks whose stamps disagree and both stamps, UNAVAILABLE a
  // rank that destroyed its end; else the reason that somebody gave to Abort.
  absl::Status Enqueue(Stream& stream, const CollectiveStamp& stamp, Launch launch);

  // Fails the waits of all ranks, now and later. The first reason stands. Any thread.
  void Abort(const absl::Status& reason);

  // From how many bytes on a reduction goes in two shots; set between operations, equally by all.
  bool InTwoShots(uint64_t bytes) const { return bytes >= two_shot_bytes_; }
  uint64_t two_shot_bytes() const { return two_shot_bytes_; }
  void set_two_shot_bytes(uint64_t bytes) { two_shot_bytes_ = bytes; }

 private:
  class Fault;

  absl::Status OpenPeer(int peer, const std::string& handle);
  // OK when no operation has failed since the last call.
  absl::Status CheckFault();
  absl::Status StatusOf(const PeerFault& fault) const;
  absl::Status MissingRanks(const PeerFault& fault) const;
  absl::Status Disagreement(const PeerFault& fault) const;
  GlobalRank Global(int rank) const { return group_.ToGlobal(GroupRank(rank)); }

  // Constant after Open.
  const Group group_;
  CudaDevice& device_;
  const Options options_;
  uint64_t layout_digest_ = 0;
  IpcMemory memory_;
  std::vector<IpcPeerMemory> opened_;  // before memory_ goes
  Peers peers_{};
  std::array<std::atomic<IpcPage*>, kMaxPeers> pages_{};  // null until opened
  std::shared_ptr<Fault> fault_;

  // Device thread only.
  uint32_t failed_operations_ = 0;  // that have been told
  uint64_t two_shot_bytes_ = ~uint64_t{0};
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_PEERS_H_
