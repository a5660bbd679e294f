// What stands in the exported segment of one rank: a header, then two slabs.
#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_LAYOUT_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/collective/collective_stamp.h"

namespace muster {

inline constexpr int kMaxShmRanks = 16;
inline constexpr size_t kShmCacheLine = 64;
inline constexpr size_t kShmPage = 4096;

// A CollectiveStamp in two words that can be read while they change.
class ShmStamp {
 public:
  void Store(const CollectiveStamp& stamp);
  CollectiveStamp Load() const;

 private:
  std::atomic<uint64_t> what_{0};
  std::atomic<uint64_t> row_bytes_{0};
};

// How far a rank has come. `tick` counts its arrivals; the stamp of arrival t is stamps[t % 2].
// Only the owner writes, but for `sleepers`.
struct alignas(kShmCacheLine) ShmArrival {
  std::atomic<uint32_t> tick{0};      // waiters sleep on it
  std::atomic<uint32_t> sleepers{0};  // how many do
  ShmStamp stamps[2];
};

// Why the owner's waits must fail. Whoever comes first writes it, from any process.
class ShmAbort {
 public:
  bool raised() const { return state_.load(std::memory_order_acquire) >= kRaised; }
  // Keeps code, typed detail and the beginning of the message. Later calls change nothing.
  void Raise(const absl::Status& reason);
  // What was raised.
  absl::Status Reason() const;

 private:
  static constexpr uint32_t kClear = 0, kWriting = 1, kRaised = 2, kReasonLost = 3;
  static constexpr size_t kTextBytes = 2048;

  std::atomic<uint32_t> state_{kClear};
  uint32_t code_ = 0;
  uint32_t error_reason_ = 0;
  uint32_t culprit_count_ = 0;
  int32_t culprits_[kMaxShmRanks] = {};
  char text_[kTextBytes] = {};
};

struct ShmHeader {
  uint64_t nonce = 0;                 // see ShmHandle
  uint64_t layout = 0;                // digest of all that peers must agree on
  std::atomic<uint32_t> departed{0};  // the owner has destroyed its end
  ShmArrival arrival;
  alignas(kShmCacheLine) ShmAbort abort;
};

static_assert(sizeof(ShmArrival) == kShmCacheLine, "an arrival is read in one transfer");
static_assert(sizeof(ShmHeader) <= kShmPage, "slabs begin at the second page");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "processes share no locks");

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_LAYOUT_H_
