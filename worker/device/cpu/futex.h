// The kernel's wait on a 32-bit word (futex(2)), for threads of one process or of several.
#ifndef MUSTER_WORKER_DEVICE_CPU_FUTEX_H_
#define MUSTER_WORKER_DEVICE_CPU_FUTEX_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace muster {

enum class FutexScope { kProcess = FUTEX_PRIVATE_FLAG, kShared = 0 };

// Sleeps while `word` is `expected`, until a wake, a signal or `timeout_us` (negative: no limit).
// May return early: callers check their condition again.
inline void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, FutexScope scope,
                      int64_t timeout_us = -1) {
  timespec timeout{static_cast<time_t>(timeout_us / 1000000),
                   static_cast<long>(timeout_us % 1000000 * 1000)};
  syscall(SYS_futex, &word, FUTEX_WAIT | static_cast<int>(scope), expected,
          timeout_us < 0 ? nullptr : &timeout, nullptr, 0);
}

inline void FutexWakeAll(std::atomic<uint32_t>& word, FutexScope scope) {
  syscall(SYS_futex, &word, FUTEX_WAKE | static_cast<int>(scope), INT_MAX, nullptr, nullptr, 0);
}

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_FUTEX_H_
