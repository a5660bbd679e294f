// Waits of Abseil, and of gRPC, which uses it, that the time of day does not move.
//
// Abseil before 2023-08 gives the kernel the time of day at which a wait ends. When somebody sets
// the machine's clock back by an hour, a wait of 50 ms that is under way then lasts an hour, and
// the coordinator would notice no death meanwhile. Abseil lets a program replace how a thread waits
// for its turn: the two functions here are what Abseil itself does, but for a wait that is measured
// from its beginning, by the clock that nobody sets. Later releases do so by themselves.

#include "absl/base/config.h"

#if ABSL_LTS_RELEASE_VERSION < 20230802

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/base/internal/thread_identity.h"
#include "absl/synchronization/internal/create_thread_identity.h"
#include "absl/synchronization/internal/kernel_timeout.h"
#include "absl/synchronization/internal/per_thread_sem.h"

namespace {

using absl::base_internal::ThreadIdentity;
using absl::synchronization_internal::KernelTimeout;

constexpr int64_t kNanosPerSecond = 1'000'000'000;

// What Abseil's own waiter, which has set it to 0, counts the turns of a thread in.
std::atomic<int32_t>& TurnsOf(ThreadIdentity* identity) {
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t));
  return *reinterpret_cast<std::atomic<int32_t>*>(&identity->waiter_state);
}

long Futex(std::atomic<int32_t>& turns, int operation, int32_t value, const timespec* until) {
  return syscall(SYS_futex, &turns, operation | FUTEX_PRIVATE_FLAG, value, until, nullptr,
                 FUTEX_BITSET_MATCH_ANY);
}

int64_t NanosOf(const timespec& time) { return time.tv_sec * kNanosPerSecond + time.tv_nsec; }

int64_t NowBy(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return NanosOf(now);
}

// The same moment by the clock that nobody sets.
timespec SteadyTime(KernelTimeout timeout) {
  const int64_t left = NanosOf(timeout.MakeAbsTimespec()) - NowBy(CLOCK_REALTIME);
  int64_t until = 0;
  if (left > 0 && __builtin_add_overflow(NowBy(CLOCK_MONOTONIC), left, &until)) until = INT64_MAX;
  return {.tv_sec = until / kNanosPerSecond, .tv_nsec = until % kNanosPerSecond};
}

bool TakeTurn(std::atomic<int32_t>& turns) {
  int32_t have = turns.load(std::memory_order_relaxed);
  while (have != 0) {
    if (turns.compare_exchange_weak(have, have - 1, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

bool AwaitTurn(std::atomic<int32_t>& turns, KernelTimeout timeout) {
  const bool bounded = timeout.has_timeout();
  const timespec until = bounded ? SteadyTime(timeout) : timespec{};
  while (!TakeTurn(turns)) {
    const long result = Futex(turns, FUTEX_WAIT_BITSET, 0, bounded ? &until : nullptr);
    if (result != 0 && errno == ETIMEDOUT) return false;
  }
  return true;
}

}  // namespace

extern "C" {

void ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemPost)(ThreadIdentity* identity) {
  std::atomic<int32_t>& turns = TurnsOf(identity);
  if (turns.fetch_add(1, std::memory_order_release) == 0) Futex(turns, FUTEX_WAKE, 1, nullptr);
}

bool ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemWait)(KernelTimeout timeout) {
  ThreadIdentity* identity = absl::synchronization_internal::GetOrCreateCurrentThreadIdentity();
  return AwaitTurn(TurnsOf(identity), timeout);
}

}  // extern "C"

#endif
