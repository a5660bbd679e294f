#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_PEERS_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_PEERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "base/metrics/counters.h"
#include "worker/collective/collective_stamp.h"
#include "worker/collective/flight_recorder.h"
#include "worker/collective/group.h"
#include "worker/collective/shm/shm_layout.h"

namespace muster {

// The one primitive that every collective over shared memory is made of. All ranks of one ordered
// list exchange slabs: a rank fills its next slab, arrives, waits until all have arrived, then
// reads theirs. Slabs alternate, so a rank that begins the next exchange disturbs nobody who still
// reads this one, and no exchange needs a second barrier.
//
// Exchanges of all that share the peers are one sequence, the same on all ranks, issued by one
// thread at a time (the device thread). Abort may come from any thread. The memory outlives this.
class ShmPeers {
 public:
  struct Options {
    uint64_t slab_bytes = 0;                          // a multiple of the page
    absl::Duration wait_timeout = absl::Seconds(10);  // of one exchange
    Logger log;
    Counter* waited_ns = nullptr;  // where waits for peers are counted, if anywhere; outlives this
  };

  // Bytes of a segment whose slabs have `slab_bytes`.
  static uint64_t SegmentBytes(uint64_t slab_bytes) { return kShmPage + 2 * slab_bytes; }

  // Formats `own`, this rank's segment of SegmentBytes; its nonce is kept.
  ShmPeers(const Group& group, std::byte* own, const Options& options);
  ShmPeers(const ShmPeers&) = delete;
  ShmPeers& operator=(const ShmPeers&) = delete;
  // Marks this rank as gone for those who wait for it. Waits for nobody.
  ~ShmPeers();

  // Once, before the first exchange: every rank's segment by group rank (the own one is ignored).
  // FAILED_PRECONDITION when a peer's layout is another; the reason of an Abort that came before.
  absl::Status Attach(const std::vector<std::byte*>& segments);

  const Group& group() const { return group_; }
  int size() const { return size_; }
  int rank() const { return rank_; }
  // What one exchange can carry: without limit where there is nobody to carry it to.
  uint64_t slab_bytes() const { return size_ == 1 ? ~uint64_t{0} : options_.slab_bytes; }
  uint64_t layout_digest() const { return layout_; }

  // This rank's slab of the next exchange, to be filled before it.
  std::byte* next_slab() { return SlabAt(rank_, tick_ + 1); }
  // A rank's slab of the latest exchange: to be read before the next one.
  const std::byte* slab(int rank) const { return SlabAt(rank, tick_); }

  // Arrives, and waits for all. On any error all ranks are aborted with it, and every later call
  // returns it: DEADLINE_EXCEEDED names the ranks that did not come, FAILED_PRECONDITION the ranks
  // whose stamps disagree and both stamps, UNAVAILABLE a rank that destroyed its end; else the
  // reason that somebody gave to Abort.
  absl::Status Exchange(const CollectiveStamp& stamp);

  // Fails the waits of all ranks, now and later. The first reason stands. Any thread.
  void Abort(const absl::Status& reason);

  // From how many bytes on a reduction goes in two shots; set between exchanges, equally by all.
  uint64_t two_shot_bytes() const { return two_shot_bytes_; }
  bool InTwoShots(uint64_t bytes) const { return size_ > 1 && bytes >= two_shot_bytes_; }
  void set_two_shot_bytes(uint64_t bytes) { two_shot_bytes_ = bytes; }

 private:
  std::byte* SlabAt(int rank, uint32_t tick) const {
    return slabs_[rank] + (tick & 1) * options_.slab_bytes;
  }
  ShmHeader& header(int rank) const { return *headers_[rank].load(std::memory_order_relaxed); }
  ShmHeader& own() const { return header(rank_); }

  void Arrive(const CollectiveStamp& stamp);
  // The slow path: `peer` had not arrived at tick_ + 1.
  absl::Status Await(int peer);
  absl::Status AwaitUntil(int peer, int64_t deadline_ns);
  absl::Status SleepUntilArrival(int peer, int64_t deadline_ns);
  // The next tick of `peer` was reached, and with the same stamp.
  absl::Status Verify(int peer, const CollectiveStamp& stamp) const;
  // Aborts all ranks and returns what they now fail with.
  absl::Status Fail(const absl::Status& reason);
  // Names `awaited`, and whoever else has not come.
  absl::Status MissingRanks(int awaited) const;
  absl::Status DepartedRank(int peer) const;

  // Constant after Attach.
  const Group group_;
  const Options options_;
  const int size_;
  const int rank_;
  uint64_t layout_ = 0;
  std::array<std::byte*, kMaxShmRanks> slabs_{};
  std::array<std::atomic<ShmHeader*>, kMaxShmRanks> headers_{};  // null until attached

  // Device thread only.
  uint32_t tick_ = 0;  // exchanges so far
  uint64_t two_shot_bytes_ = ~uint64_t{0};
  FlightRecorder recorder_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_PEERS_H_
