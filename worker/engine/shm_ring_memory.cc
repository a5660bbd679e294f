#include "worker/engine/shm_ring_memory.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"
#include "base/spin_wait.h"
#include "base/status_macros.h"
#include "worker/device/cpu/futex.h"

namespace muster {
namespace {

// The next step of a busy replica comes within this.
constexpr int64_t kSpinNs = 20'000;
// A sleeper looks around this often, so that a lost wake costs no more.
constexpr int64_t kSleepUs = 100'000;
constexpr int64_t kNever = INT64_MAX;

int64_t NowNs() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

}  // namespace

size_t ShmRingMemory::SlotBytes(size_t message_bytes) {
  const size_t bytes = sizeof(uint64_t) + message_bytes;
  return (bytes + kShmCacheLine - 1) / kShmCacheLine * kShmCacheLine;
}

size_t ShmRingMemory::BytesFor(size_t message_bytes) {
  const size_t bytes = kShmPage + kDepth * SlotBytes(message_bytes);
  return (bytes + kShmPage - 1) / kShmPage * kShmPage;
}

ShmRingMemory::ShmRingMemory(std::byte* memory, int index)
    : memory_(memory), header_(std::launder(reinterpret_cast<Header*>(memory))), index_(index) {
  static_assert(sizeof(Header) <= kShmPage, "slots begin at the second page");
}

ShmRingMemory ShmRingMemory::Format(std::byte* memory, int followers, size_t message_bytes) {
  uint64_t nonce;
  std::memcpy(&nonce, memory, sizeof(nonce));
  Header* header = new (memory) Header;
  header->nonce = nonce;
  header->magic = kMagic;
  header->followers = static_cast<uint32_t>(followers);
  header->message_bytes = static_cast<uint32_t>(message_bytes);
  return ShmRingMemory(memory, -1);
}

absl::StatusOr<ShmRingMemory> ShmRingMemory::Attach(std::byte* memory, size_t bytes, int index) {
  const ShmRingMemory ring(memory, index);
  if (bytes < kShmPage || ring.header_->magic != kMagic ||
      ring.header_->followers > kMaxFollowers || index < 0 ||
      index >= static_cast<int>(ring.header_->followers) ||
      bytes != BytesFor(ring.header_->message_bytes)) {
    return absl::DataLossError(
        absl::StrCat("the shared memory is no ring of steps with a follower ", index));
  }
  return ring;
}

void ShmRingMemory::Ring(Counter& counter) {
  // Sequentially consistent, as is a sleeper's count: either it sees the bell or we see it.
  counter.bell.fetch_add(1);
  if (counter.sleepers.load() != 0) FutexWakeAll(counter.bell, FutexScope::kShared);
}

absl::Status ShmRingMemory::AwaitCount(Counter& counter, uint64_t wanted, int64_t deadline_ns) {
  const int64_t start = NowNs();
  for (int64_t now = start;; now = NowNs()) {
    const uint32_t bell = counter.bell.load();
    if (header_->abort.raised()) return header_->abort.Reason();
    if (counter.count.load(std::memory_order_acquire) >= wanted) return absl::OkStatus();
    if (now >= deadline_ns) return absl::DeadlineExceededError("the ring of steps stands still");
    if (now - start < kSpinNs) {
      CpuRelax();
      continue;
    }
    counter.sleepers.fetch_add(1);
    const int64_t left_us = deadline_ns == kNever ? kSleepUs : (deadline_ns - now) / 1000 + 1;
    FutexWait(counter.bell, bell, FutexScope::kShared, std::min(left_us, kSleepUs));
    counter.sleepers.fetch_sub(1);
  }
}

absl::Status ShmRingMemory::AwaitPopped(uint64_t count, absl::Duration timeout) {
  const int64_t deadline = NowNs() + absl::ToInt64Nanoseconds(timeout);
  for (uint32_t i = 0; i < header_->followers; ++i) {
    const absl::Status popped = AwaitCount(header_->popped[i], count, deadline);
    if (absl::IsDeadlineExceeded(popped) && !header_->abort.raised()) {
      return absl::DeadlineExceededError(
          absl::StrCat("follower ", i, " took no step for ", absl::FormatDuration(timeout),
                       "; it is ", next_ - header_->popped[i].count.load(), " behind"));
    }
    MUSTER_RETURN_IF_ERROR(popped);
  }
  return absl::OkStatus();
}

absl::Status ShmRingMemory::AwaitTaken(absl::Duration timeout) {
  return AwaitPopped(next_, timeout);
}

absl::Status ShmRingMemory::Push(absl::string_view message, absl::Duration timeout) {
  if (message.size() > header_->message_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a step of ", message.size(), " bytes; the ring takes ", header_->message_bytes));
  }
  if (next_ >= kDepth) MUSTER_RETURN_IF_ERROR(AwaitPopped(next_ - kDepth + 1, timeout));
  if (header_->abort.raised()) return header_->abort.Reason();
  const uint64_t size = message.size();
  std::memcpy(Slot(next_), &size, sizeof(size));
  std::memcpy(Slot(next_) + sizeof(size), message.data(), size);
  header_->pushed.count.store(++next_, std::memory_order_release);
  Ring(header_->pushed);
  return absl::OkStatus();
}

absl::Status ShmRingMemory::Pop(std::string& message) {
  // What has come is taken whatever became of the ring since: it may be what ends the epoch.
  if (header_->pushed.count.load(std::memory_order_acquire) <= next_) {
    MUSTER_RETURN_IF_ERROR(AwaitCount(header_->pushed, next_ + 1, kNever));
  }
  uint64_t size;
  std::memcpy(&size, Slot(next_), sizeof(size));
  if (size > header_->message_bytes) {
    return absl::DataLossError(
        absl::StrCat("message ", next_, " of the ring has ", size, " bytes"));
  }
  message.assign(reinterpret_cast<const char*>(Slot(next_) + sizeof(size)), size);
  Counter& popped = header_->popped[index_];
  popped.count.store(++next_, std::memory_order_release);
  Ring(popped);
  return absl::OkStatus();
}

void ShmRingMemory::Abort(const absl::Status& reason) {
  header_->abort.Raise(reason.ok() ? absl::AbortedError("aborted") : reason);
  Ring(header_->pushed);
  for (uint32_t i = 0; i < header_->followers; ++i) Ring(header_->popped[i]);
}

}  // namespace muster
