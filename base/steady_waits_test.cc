// Waits while the time of day is another than the kernel's: as after somebody has set the clock.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace {

// By how much this program's time of day is ahead of the kernel's.
std::atomic<int64_t> ahead_seconds{0};

}  // namespace

// The C library's, but for the time of day.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += ahead_seconds.load();
  return static_cast<int>(result);
}

extern "C" int gettimeofday(timeval* now, void*) noexcept {
  timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  *now = {.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
  return 0;
}

namespace muster {
namespace {

using Steady = std::chrono::steady_clock;

constexpr absl::Duration kWait = absl::Milliseconds(30);
// The tests' own limit, far below an hour.
constexpr auto kLong = std::chrono::seconds(30);

class SteadyWaitsTest : public testing::TestWithParam<int64_t> {
 protected:
  // Abseil asks for the time of day every few seconds, and counts on by itself meanwhile.
  SteadyWaitsTest() {
    ahead_seconds = GetParam();
    while (absl::AbsDuration(absl::Now() - absl::FromChrono(std::chrono::system_clock::now())) >
           absl::Minutes(1)) {
      std::this_thread::yield();
    }
  }
  ~SteadyWaitsTest() override { ahead_seconds = 0; }

  // That `wait` took as long as it was meant to.
  void ExpectTakesItsTime(const std::function<void()>& wait) {
    const Steady::time_point begun = Steady::now();
    wait();
    EXPECT_GE(Steady::now() - begun, absl::ToChronoNanoseconds(kWait));
    EXPECT_LT(Steady::now() - begun, kLong);
  }
};

TEST_P(SteadyWaitsTest, ANotificationThatDoesNotComeIsAwaitedForItsTime) {
  absl::Notification never;
  ExpectTakesItsTime([&] { EXPECT_FALSE(never.WaitForNotificationWithTimeout(kWait)); });
}

TEST_P(SteadyWaitsTest, AConditionThatDoesNotHoldIsAwaitedForItsTime) {
  absl::Mutex mu;
  bool never = false;
  ExpectTakesItsTime([&] {
    absl::MutexLock lock(&mu);
    EXPECT_FALSE(mu.AwaitWithTimeout(absl::Condition(&never), kWait));
  });
}

TEST_P(SteadyWaitsTest, ADeadlineIsKept) {
  absl::Mutex mu;
  absl::CondVar changed;
  ExpectTakesItsTime([&] {
    absl::MutexLock lock(&mu);
    EXPECT_TRUE(changed.WaitWithDeadline(&mu, absl::Now() + kWait));
  });
}

TEST_P(SteadyWaitsTest, WhatComesEndsTheWait) {
  absl::Mutex mu;
  bool come = false;
  std::thread other([&] {
    absl::MutexLock lock(&mu);
    come = true;
  });
  {
    absl::MutexLock lock(&mu);
    EXPECT_TRUE(mu.AwaitWithTimeout(absl::Condition(&come), absl::Hours(1)));
  }
  other.join();
}

TEST_P(SteadyWaitsTest, TheEndOfTimeIsNoOverflow) {
  absl::Notification note;
  std::thread other([&] { note.Notify(); });
  EXPECT_TRUE(note.WaitForNotificationWithTimeout(absl::Hours(24 * 365 * 300)));
  EXPECT_TRUE(note.WaitForNotificationWithDeadline(absl::InfiniteFuture()));
  other.join();
}

TEST_P(SteadyWaitsTest, AMomentThatIsPastIsNotAwaited) {
  absl::Notification never;
  EXPECT_FALSE(never.WaitForNotificationWithDeadline(absl::Now() - absl::Hours(1)));
  EXPECT_FALSE(never.WaitForNotificationWithDeadline(absl::InfinitePast()));
}

INSTANTIATE_TEST_SUITE_P(Clock, SteadyWaitsTest, testing::Values(0, 3600, -3600),
                         [](const auto& info) -> std::string {
                           return info.param == 0  ? "Right"
                                  : info.param > 0 ? "SetBackByAnHour"
                                                   : "SetForwardByAnHour";
                         });

}  // namespace
}  // namespace muster
