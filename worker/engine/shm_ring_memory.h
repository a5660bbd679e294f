// The ring of steps as it lies in shared memory, and the two ends' use of it.
#ifndef MUSTER_WORKER_ENGINE_SHM_RING_MEMORY_H_
#define MUSTER_WORKER_ENGINE_SHM_RING_MEMORY_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/collective/shm/shm_layout.h"

namespace muster {

// A ring in memory that several processes may map. The memory outlives this object and stays where
// it is. See StepRing for the contract of Push, Pop and Abort.
class ShmRingMemory {
 public:
  static constexpr int kMaxFollowers = kMaxShmRanks - 1;
  // Messages that the leader can be ahead of the slowest follower.
  static constexpr uint64_t kDepth = 8;

  static size_t BytesFor(size_t message_bytes);

  // The leader: lays the ring out in `memory`, BytesFor(message_bytes) of it. The nonce in the
  // first eight bytes is kept.
  static ShmRingMemory Format(std::byte* memory, int followers, size_t message_bytes);
  // Follower `index`: DATA_LOSS when `memory` of `bytes` holds no ring with such a follower.
  static absl::StatusOr<ShmRingMemory> Attach(std::byte* memory, size_t bytes, int index);

  absl::Status Push(absl::string_view message, absl::Duration timeout);
  absl::Status AwaitTaken(absl::Duration timeout);
  absl::Status Pop(std::string& message);
  void Abort(const absl::Status& reason);

 private:
  // A count and those who sleep until it changes. Only one end adds to the count.
  struct alignas(kShmCacheLine) Counter {
    std::atomic<uint64_t> count{0};
    std::atomic<uint32_t> bell{0};  // changes whenever the count does or the ring is aborted
    std::atomic<uint32_t> sleepers{0};
  };
  struct Header {
    uint64_t nonce = 0;
    uint64_t magic = 0;
    uint32_t followers = 0;
    uint32_t message_bytes = 0;
    Counter pushed;
    std::array<Counter, kMaxFollowers> popped;
    alignas(kShmCacheLine) ShmAbort abort;
  };
  static constexpr uint64_t kMagic = 0x676e697270657473;  // "stepring"

  ShmRingMemory(std::byte* memory, int index);

  static size_t SlotBytes(size_t message_bytes);
  std::byte* Slot(uint64_t number) const {
    return memory_ + kShmPage + number % kDepth * SlotBytes(header_->message_bytes);
  }
  static void Ring(Counter& counter);
  // Leader: waits until all followers have popped `count` messages.
  absl::Status AwaitPopped(uint64_t count, absl::Duration timeout);
  // Waits until `counter` is at least `wanted`: OK, the reason of an abort, or DEADLINE_EXCEEDED.
  absl::Status AwaitCount(Counter& counter, uint64_t wanted, int64_t deadline_ns);

  std::byte* memory_;
  Header* header_;
  int index_;          // of the follower; -1 of the leader
  uint64_t next_ = 0;  // number of the message to be pushed or popped next
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SHM_RING_MEMORY_H_
