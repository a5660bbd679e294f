// Waiting without sleeping, for what comes soon or not.
#ifndef MUSTER_BASE_SPIN_WAIT_H_
#define MUSTER_BASE_SPIN_WAIT_H_

#include <sched.h>

#include <chrono>
#include <cstdint>

namespace muster {

// Tells the core that this is a spin.
inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline int64_t SteadyNowNs() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

// Looks at `ready` again and again for `patience_ns`; whether it became true. Before sleeping,
// which costs a hundred times as much. After a microsecond each look offers the core to whoever
// wants it: on an idle core that is nearly as quick as spinning, and where the one that is waited
// for shares the core, a waiter that kept it would wait for itself.
template <typename Ready>
bool SpinUntil(int64_t patience_ns, Ready ready) {
  constexpr int64_t kHoldCoreNs = 500;
  constexpr int kLooks = 4;
  if (ready()) return true;
  const int64_t start = SteadyNowNs();
  for (int64_t waited = 0; waited < patience_ns; waited = SteadyNowNs() - start) {
    if (waited > kHoldCoreNs) sched_yield();
    for (int i = 0; i < kLooks; ++i) {
      if (ready()) return true;
      CpuRelax();
    }
  }
  return false;
}

}  // namespace muster

#endif  // MUSTER_BASE_SPIN_WAIT_H_
