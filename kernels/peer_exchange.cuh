// The protocol between the kernels of several ranks.
//
// Lamport (one shot): the data is the flag. A rank stores its words into the boxes of its peers,
// who poll them until they are no longer kEmpty. Nothing is fenced: each 32-bit word tells of
// itself. kEmpty is all ones, a NaN of every type; a NaN with these bits travels as another one,
// and every other value, -0 among them, as it is. Bits are compared, never floats. The reader
// empties a word as soon as it has it. Two boxes take turns: whoever pushes operation s+2 has
// finished s+1, for which this rank began s+1, so this rank has read and emptied all of s.
//
// Flags (two shots): data is stored, then fenced at system scope, then a flag is set.
#ifndef MUSTER_KERNELS_PEER_EXCHANGE_CUH_
#define MUSTER_KERNELS_PEER_EXCHANGE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/peer_exchange.h"

namespace muster {

inline constexpr uint32_t kEmpty = 0xFFFFFFFFu;
// Stands in for a word that is kEmpty: one NaN of 32 bits or two of 16.
inline constexpr uint32_t kNotEmpty = 0x7FFF7FFFu;
// Polls between two looks at the clock and the control word, which lies beyond a slow bus.
inline constexpr uint32_t kPollsPerLook = 1024;

__device__ inline uint4 LoadRelaxed(const void* from) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

__device__ inline void StoreRelaxed(void* to, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

// As one access: no half of another stamp is ever seen.
__device__ inline PeerStamp LoadStamp(const PeerStamp* from) {
  PeerStamp s;
  asm volatile(
      "{ .reg .b128 q; .reg .b64 a, b; ld.relaxed.sys.global.b128 q, [%4]; mov.b128 {a, b}, q;"
      "  mov.b64 {%0, %1}, a; mov.b64 {%2, %3}, b; }"
      : "=r"(s.sequence), "=r"(s.what), "=r"(s.rows), "=r"(s.row_bytes)
      : "l"(from)
      : "memory");
  return s;
}

__device__ inline void StoreStamp(PeerStamp* to, const PeerStamp& s) {
  asm volatile(
      "{ .reg .b128 q; .reg .b64 a, b; mov.b64 a, {%1, %2}; mov.b64 b, {%3, %4};"
      "  mov.b128 q, {a, b}; st.relaxed.sys.global.b128 [%0], q; }"
      :
      : "l"(to), "r"(s.sequence), "r"(s.what), "r"(s.rows), "r"(s.row_bytes)
      : "memory");
}

__device__ inline bool SameOperation(const PeerStamp& a, const PeerStamp& b) {
  return a.what == b.what && a.rows == b.rows && a.row_bytes == b.row_bytes;
}

__device__ inline uint32_t LoadRelaxed(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ inline uint32_t LoadAcquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ inline void StoreRelease(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" : : "l"(to), "r"(value) : "memory");
}

__device__ inline uint64_t GlobalNanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__device__ inline bool HasArrived(uint4 word) {
  return word.x != kEmpty && word.y != kEmpty && word.z != kEmpty && word.w != kEmpty;
}

__device__ inline uint4 MarkNotEmpty(uint4 word) {
  return make_uint4(word.x == kEmpty ? kNotEmpty : word.x, word.y == kEmpty ? kNotEmpty : word.y,
                    word.z == kEmpty ? kNotEmpty : word.z, word.w == kEmpty ? kNotEmpty : word.w);
}

// A rank whose word has not arrived, or -1.
template <int kRanks>
__device__ int Missing(const uint4 (&words)[kRanks]) {
  int missing = -1;
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    if (!HasArrived(words[r])) missing = r;
  }
  return missing;
}

// The sequence of the operation after that of `sequence`. It wraps around past 0, which is none, to
// the next even number: boxes and stamps take turns by its last bit.
__device__ inline uint32_t SequenceAfter(uint32_t sequence) {
  return sequence == 0xFFFFFFFFu ? 2 : sequence + 1;
}

// One thread's part in one operation. Every thread of the grid makes one, once.
class PeerOperation {
 public:
  // Synchronises the block, whose first thread reads for all which operation it is, and then counts
  // the block as one that knows. Nobody waits for the count; the last one moves on in Finish.
  __device__ PeerOperation(const Peers& peers, const PeerStamp& stamp)
      : peers_(peers), stamp_(stamp) {
    __shared__ uint32_t finished, failed;
    PeerHeader& own = header(peers.rank);
    if (threadIdx.x == 0) {
      finished = LoadRelaxed(&own.sequence);
      failed = LoadRelaxed(&own.failed);
    }
    __syncthreads();
    stamp_.sequence = SequenceAfter(finished);
    refused_ = failed != 0 && failed != stamp_.sequence;
    if (threadIdx.x == 0) acknowledged_ = atomicAdd(&own.acknowledged_blocks, 1) + 1;
  }

  // An earlier operation failed: nothing is to be done but Finish.
  __device__ bool refused() const { return refused_; }
  __device__ int rank() const { return peers_.rank; }
  __device__ int world() const { return peers_.layout.world; }
  __device__ uint32_t sequence() const { return stamp_.sequence; }

  // Where this rank's words go in `peer`'s box, and where `source`'s arrive here.
  __device__ uint4* Outbox(int peer) const { return Slot(peer, peers_.rank); }
  __device__ uint4* Inbox(int source) const { return Slot(peers_.rank, source); }
  // Of two shots.
  __device__ uint4* Scatter(int rank) const {
    return reinterpret_cast<uint4*>(peers_.regions[rank] + peers_.layout.ScatterOffset());
  }
  __device__ uint4* Gather(int rank) const {
    return reinterpret_cast<uint4*>(peers_.regions[rank] + peers_.layout.GatherOffset());
  }

  // By the first block: tells every peer what this rank is doing.
  __device__ void PushStamp() const {
    const int peer = static_cast<int>(threadIdx.x);
    if (blockIdx.x != 0 || peer >= world()) return;
    StoreStamp(&header(peer).stamps[stamp_.sequence & 1][peers_.rank], stamp_);
  }

  // By the first block: all peers have come, and do the same. Glancing, at any time before, hides
  // the latency of checking.
  __device__ void GlanceAtStamps() {
    const int peer = static_cast<int>(threadIdx.x);
    if (blockIdx.x == 0 && peer < world()) theirs_ = LoadStamp(&StampOf(peer));
  }
  __device__ void CheckStamps() {
    const int peer = static_cast<int>(threadIdx.x);
    if (blockIdx.x != 0 || peer >= world()) return;
    while (theirs_.sequence != stamp_.sequence && MayWait(peer)) GlanceAtStamps();
    if (!gave_up() && !SameOperation(theirs_, stamp_)) Fail(PeerFailure::kDisagreement, peer);
  }

  // Waits for the same word of every rank's slot here and empties it. `inbox` is rank 0's; words
  // beyond the peers' hold anything but kEmpty before. What has not come when waiting ends stays
  // so.
  template <int kRanks>
  __device__ void AwaitWords(uint4* inbox, uint4 (&words)[kRanks]) {
    const int64_t stride = peers_.layout.slot_bytes / static_cast<int64_t>(sizeof(uint4));
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r < world() && r != rank()) words[r] = LoadRelaxed(inbox + r * stride);
    }
    for (int missing = Missing(words); missing >= 0 && MayWait(missing); missing = Missing(words)) {
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (!HasArrived(words[r])) words[r] = LoadRelaxed(inbox + r * stride);
      }
    }
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r < world() && r != rank()) {
        inbox[r * stride] = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
      }
    }
  }

  // The same for one word of `source`'s slot.
  __device__ uint4 AwaitWord(int source, uint4* from) {
    uint4 word = LoadRelaxed(from);
    while (!HasArrived(word) && MayWait(source)) word = LoadRelaxed(from);
    *from = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
    return word;
  }

  // All that this block has stored at its peers can be read by their blocks of the same index once
  // their AwaitFlags of this `shot` is over. Both synchronise the block.
  __device__ void RaiseFlags(int shot) const {
    __syncthreads();
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < world() && peer != rank()) {
      StoreRelease(&header(peer).flags[shot][blockIdx.x][rank()], stamp_.sequence);
    }
  }
  __device__ void AwaitFlags(int shot) {
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < world() && peer != rank()) {
      const uint32_t* flag = &header(rank()).flags[shot][blockIdx.x][peer];
      while (LoadAcquire(flag) != stamp_.sequence && MayWait(peer)) {
      }
    }
    __syncthreads();
  }

  // By all threads, last of all. The block that was counted last says which operation is over: to
  // the stream's next kernel, which begins when all blocks of this one have ended.
  __device__ void Finish() const {
    if (threadIdx.x != 0) return;
    PeerHeader& own = header(rank());
    if (refused_ && blockIdx.x == 0) CountFailure();
    if (acknowledged_ != gridDim.x) return;
    own.acknowledged_blocks = 0;
    own.sequence = stamp_.sequence;
  }

 private:
  static constexpr uint64_t kGaveUp = ~uint64_t{0};

  __device__ PeerHeader& header(int rank) const {
    return *reinterpret_cast<PeerHeader*>(peers_.regions[rank]);
  }
  __device__ const PeerStamp& StampOf(int peer) const {
    return header(rank()).stamps[stamp_.sequence & 1][peer];
  }
  __device__ uint4* Slot(int owner, int source) const {
    const int64_t slot = (stamp_.sequence & 1) * world() + source;
    return reinterpret_cast<uint4*>(peers_.regions[owner] + PeerLayout::kHeaderBytes +
                                    slot * peers_.layout.slot_bytes);
  }
  __device__ bool gave_up() const { return deadline_ == kGaveUp; }

  // Called between two polls for something of `peer`; false when there is no use in another.
  __device__ bool MayWait(int peer) {
    if (gave_up()) return false;
    if (++polls_ % kPollsPerLook != 0) return true;
    deadline_ = Look(peers_, stamp_, peer, deadline_);
    return !gave_up();
  }

  __device__ void Fail(PeerFailure failure, int peer) {
    Report(peers_, stamp_, failure, peer);
    deadline_ = kGaveUp;
  }

  // The slow path of waiting: takes and returns the deadline, 0 where there is none yet.
  static __device__ __noinline__ uint64_t Look(const Peers& peers, PeerStamp stamp, int peer,
                                               uint64_t deadline);
  // Leaves the record of the first failure.
  static __device__ __noinline__ void Report(const Peers& peers, PeerStamp stamp,
                                             PeerFailure failure, int peer);
  __device__ void CountFailure() const {
    volatile uint32_t* counted = &peers_.fault->failed_operations;
    *counted = ++header(rank()).failed_operations;
  }

  const Peers& peers_;
  PeerStamp stamp_;
  PeerStamp theirs_;  // of the peer that this thread checks
  uint32_t acknowledged_ = 0;
  uint64_t deadline_ = 0;
  uint32_t polls_ = 0;
  bool refused_;
};

__device__ __noinline__ inline uint64_t PeerOperation::Look(const Peers& peers, PeerStamp stamp,
                                                            int peer, uint64_t deadline) {
  const PeerHeader& own = *reinterpret_cast<const PeerHeader*>(peers.regions[peers.rank]);
  if (LoadRelaxed(&own.failed) != 0) return kGaveUp;  // another thread has reported
  // In this order: what a rank that has left ever did can be seen.
  const uint32_t control = LoadAcquire(peers.control);
  const PeerStamp theirs = LoadStamp(&own.stamps[stamp.sequence & 1][peer]);
  const uint64_t now = GlobalNanoseconds();
  PeerFailure failure = PeerFailure::kNone;
  if (theirs.sequence == stamp.sequence && !SameOperation(theirs, stamp)) {
    failure = PeerFailure::kDisagreement;
  } else if ((control & kPeerAbort) != 0) {
    failure = PeerFailure::kAborted;
  } else if ((control & PeerGone(peer)) != 0 && theirs.sequence != stamp.sequence) {
    failure = PeerFailure::kGone;
  } else if (deadline != 0 && now >= deadline) {
    failure = PeerFailure::kMissing;
  }
  if (failure == PeerFailure::kNone) return deadline != 0 ? deadline : now + peers.timeout_ns;
  Report(peers, stamp, failure, peer);
  return kGaveUp;
}

__device__ __noinline__ inline void PeerOperation::Report(const Peers& peers, PeerStamp stamp,
                                                          PeerFailure failure, int peer) {
  PeerHeader& own = *reinterpret_cast<PeerHeader*>(peers.regions[peers.rank]);
  if (atomicCAS(&own.failed, 0, stamp.sequence) != 0) return;
  volatile PeerFault& fault = *peers.fault;
  fault.failure = failure;
  fault.peer = peer;
  fault.own.what = stamp.what;
  fault.own.rows = stamp.rows;
  fault.own.row_bytes = stamp.row_bytes;
  fault.own.sequence = stamp.sequence;
  for (int r = 0; r < peers.layout.world; ++r) {
    PeerStamp latest = LoadStamp(&own.stamps[stamp.sequence & 1][r]);
    if (latest.sequence != stamp.sequence) latest = LoadStamp(&own.stamps[~stamp.sequence & 1][r]);
    fault.latest[r].sequence = latest.sequence;
    fault.latest[r].what = latest.what;
    fault.latest[r].rows = latest.rows;
    fault.latest[r].row_bytes = latest.row_bytes;
  }
  __threadfence_system();
  fault.failed_operations = ++own.failed_operations;
}

}  // namespace muster

#endif  // MUSTER_KERNELS_PEER_EXCHANGE_CUH_
