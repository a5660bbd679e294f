#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PEERS_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PEERS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "kernels/cuda_launch.h"
#include "worker/collective/collective_stamp.h"
#include "worker/collective/group.h"
#include "worker/collective/nccl/nccl_comm.h"
#include "worker/collective/nccl/nccl_memory.h"
#include "worker/device/cuda/cuda_stream.h"

namespace muster {

// What every collective over NCCL is made of. NCCL moves bytes; what is summed is summed here, in
// the order of the ranks, so that the bits are those of every other backend. Operations of all that
// share the peers are one sequence, the same on all ranks, enqueued by one thread at a time on one
// stream at a time. Abort may come from any thread.
//
// Ranks that can open each other's pages are told at once who failed and why; of those on other
// hosts only NCCL's silence or its error is seen, or the Abort that comes by another way.
class NcclPeers {
 public:
  struct Options {
    uint64_t slab_bytes = 0;  // of the longest row
    uint64_t box_bytes = 0;   // of scratch for each rank, twice; at least a slab, whole 256 bytes
    absl::Duration wait_timeout = absl::Seconds(10);  // of one operation
    Logger log;
  };

  // Bytes of scratch of a group.
  static uint64_t ScratchBytes(int ranks, uint64_t box_bytes) { return 2 * ranks * box_bytes; }

  // `nccl` (null only of a group of one) and `device` outlive it.
  NcclPeers(const Group& group, const NcclLibrary* nccl, CudaDevice& device, NcclMemory memory,
            const Options& options);
  NcclPeers(const NcclPeers&) = delete;
  NcclPeers& operator=(const NcclPeers&) = delete;
  // Tells those who wait for this rank that it is gone. Waits for nobody; nothing that was enqueued
  // may be running, and graphs that hold operations are gone.
  ~NcclPeers();

  // Of the first rank it holds the communicator's id. Opaque to others; see Open.
  std::string Handle();
  // Once, before the first operation: every rank's handle by group rank. Joins the communicator and
  // runs all that will be used, so that nothing is connected later. FAILED_PRECONDITION names a
  // rank whose layout is another, DEADLINE_EXCEEDED those who did not come; the reason of an Abort.
  absl::Status Open(const std::vector<std::string>& handles);
  void StopExporting() { memory_.StopExporting(); }

  const Group& group() const { return group_; }
  int size() const { return group_.size(); }
  int rank() const { return group_.rank().value(); }
  uint64_t slab_bytes() const { return options_.slab_bytes; }
  uint64_t box_bytes() const { return options_.box_bytes; }
  uint64_t layout_digest() const { return layout_digest_; }
  size_t bytes() const { return memory_.bytes(); }

  // Scratch, for the operation that is being enqueued. What lies behind inbox(r) for all r is
  // contiguous, and so it is with outbox.
  std::byte* inbox(int rank) const { return memory_.scratch() + rank * box_bytes(); }
  std::byte* outbox(int rank) const { return inbox(size() + rank); }

  // Enqueues what `work` enqueues: one operation of all ranks, which they must stamp equally. The
  // reason of an abort that was. What fails later comes from the stream's Synchronize, and aborts
  // all ranks: DEADLINE_EXCEEDED names the ranks that did not come, FAILED_PRECONDITION the ranks
  // whose stamps disagree and both stamps, UNAVAILABLE a rank that destroyed its end or that NCCL
  // lost; else the reason that somebody gave to Abort.
  using Work = absl::FunctionRef<absl::Status(CudaStream)>;
  absl::Status Enqueue(Stream& stream, const CollectiveStamp& stamp, Work work);

  // For `work`, in groups of several. receive[size * bytes] := every rank's send[bytes].
  absl::Status Gather(const void* send, void* receive, size_t bytes, CudaStream stream);
  // Rank r gets `to[r]`, and from it comes `from[r]`; nothing goes to this rank itself.
  struct Piece {
    const void* send = nullptr;
    size_t send_bytes = 0;
    void* receive = nullptr;
    size_t receive_bytes = 0;
  };
  absl::Status Exchange(const std::vector<Piece>& by_rank, CudaStream stream);
  absl::Status Broadcast(void* data, size_t bytes, int root, CudaStream stream);

  // Fails the operations of all ranks, now and later. The first reason stands. Any thread.
  void Abort(const absl::Status& reason);

  // From how many bytes on a sum goes in two shots; set between operations, equally by all.
  bool InTwoShots(uint64_t bytes) const { return bytes >= two_shot_bytes_; }
  void set_two_shot_bytes(uint64_t bytes) { two_shot_bytes_ = bytes; }

 private:
  class Fault;

  absl::Status OpenPeer(int peer, const std::string& handle);
  absl::Status Join(const std::string& id);
  absl::Status RunAllOnce();
  // Lets go of the thread that waits for ranks that will never come.
  void ForgetId();

  // OK unless somebody aborted.
  absl::Status Interrupted() const;
  absl::Status Run(absl::FunctionRef<ncclResult_t(ncclComm_t)> calls);
  // Of the fault: while work runs, and when it has run.
  void Watch(absl::Duration waited);
  absl::Status CheckFault();
  // The first disagreement among the stamps that were not compared before; OK where there is none.
  absl::Status CompareStamps();
  absl::Status FindFailure(absl::Duration waited);
  void Fail(const absl::Status& reason);

  uint32_t SequenceOf(int peer) const;
  absl::Status MissingRanks(absl::StatusCode code, absl::string_view why) const;
  absl::Status Disagreement(int peer, const PeerStamp& own, const PeerStamp& other) const;
  absl::Status Left(int peer) const;
  GlobalRank Global(int rank) const { return group_.ToGlobal(GroupRank(rank)); }

  // Constant after Open.
  const Group group_;
  const NcclLibrary* const nccl_;
  CudaDevice& device_;
  const Options options_;
  uint64_t layout_digest_ = 0;
  std::optional<ncclUniqueId> id_;  // made here, and not used yet
  NcclMemory memory_;
  std::vector<ShmMapping> mappings_;
  std::array<std::atomic<NcclPage*>, kMaxPeers> pages_{};  // null where none can be opened
  std::optional<NcclComm> comm_;                           // of several ranks; before memory_ goes
  std::shared_ptr<Fault> fault_;

  // Device thread only.
  absl::Duration patience_;  // with an operation; longer until all has run once
  uint64_t two_shot_bytes_ = ~uint64_t{0};
  uint32_t compared_ = 0;   // operations whose stamps were
  uint32_t seen_ = 0;       // the latest operation that was seen to begin,
  absl::Duration seen_at_;  // and how long that wait had lasted
  absl::Duration sick_at_ = absl::InfiniteDuration();  // the same of NCCL's first error
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_PEERS_H_
