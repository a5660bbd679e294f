// Waiting without sleeping, for what comes soon or not.
#ifndef MUSTER_BASE_SPIN_WAIT_H_
#define MUSTER_BASE_SPIN_WAIT_H_

#include <sched.h>

#include <algorithm>
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

// What a thread knows of its core: whether others want it, who do not give it back soon.
class CoreSharing {
 public:
  // A look that takes longer was not the peer's doing: the core was somebody else's.
  static constexpr int64_t kAwayNs = 1'000'000;
  // Waits after that in which the core is given away by sleeping: few after a disturbance, and
  // twice as many as before where trying again, this many waits later, has lost the core again.
  static constexpr int kFewest = 16, kMost = 1024, kSoon = 64;

  // Called once in a wait: whether it may spin.
  bool MaySpin() {
    if (sleeps_ > 0) {
      --sleeps_;
      return false;
    }
    if (spins_ < kSoon) ++spins_;
    return true;
  }
  // A look took `ns`; whether the wait may go on spinning.
  bool MaySpinAfter(int64_t ns) {
    if (ns < kAwayNs) return true;
    const bool again = spins_ < kSoon;
    pause_ = again ? std::min(2 * pause_, kMost) : kFewest;
    sleeps_ = pause_;
    spins_ = 0;
    return false;
  }

 private:
  int sleeps_ = 0;       // waits that are still to sleep
  int spins_ = kSoon;    // waits that spun since, up to kSoon
  int pause_ = kFewest;  // what sleeps_ began with
};

inline thread_local CoreSharing core_sharing;

// Looks at `ready` again and again for `patience_ns`; whether it became true. Before sleeping,
// which costs a hundred times as much. After a microsecond each look offers the core to whoever
// wants it: on an idle core that is nearly as quick as spinning, and where the one that is waited
// for shares the core, a waiter that kept it would wait for itself. But whoever yields gives a
// whole time slice away: where another program wants the core, too, it is cheaper to sleep soon
// and be woken.
template <typename Ready>
bool SpinUntil(int64_t patience_ns, Ready ready) {
  constexpr int64_t kHoldCoreNs = 500;
  constexpr int64_t kShortNs = 2'000;
  constexpr int kLooks = 4;
  if (ready()) return true;
  const bool spins = core_sharing.MaySpin();
  if (!spins) patience_ns = std::min(patience_ns, kShortNs);
  const int64_t start = SteadyNowNs();
  for (int64_t now = start; now - start < patience_ns;) {
    if (spins && now - start > kHoldCoreNs) sched_yield();
    for (int i = 0; i < kLooks; ++i) {
      if (ready()) return true;
      CpuRelax();
    }
    const int64_t looked = SteadyNowNs();
    if (!core_sharing.MaySpinAfter(looked - now)) return ready();
    now = looked;
  }
  return false;
}

}  // namespace muster

#endif  // MUSTER_BASE_SPIN_WAIT_H_
