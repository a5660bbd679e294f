#include "base/clock.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/time/clock.h"

namespace muster {
namespace {

TEST(FakeClock, StandsStillUntilItIsMoved) {
  FakeClock clock;
  EXPECT_EQ(clock.Now(), absl::UnixEpoch());
  EXPECT_EQ(clock.Now(), absl::UnixEpoch());
  clock.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(clock.Now(), absl::UnixEpoch() + absl::Milliseconds(1500));
  clock.Advance(absl::Milliseconds(500));
  EXPECT_EQ(clock.Now(), absl::UnixEpoch() + absl::Seconds(2));
}

TEST(FakeClock, BeginsWhereItIsTold) {
  const absl::Time start = absl::FromUnixSeconds(1'000'000);
  EXPECT_EQ(FakeClock(start).Now(), start);
}

TEST(FakeClock, LosesNoStepOfAnyThread) {
  FakeClock clock;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int step = 0; step < 1000; ++step) clock.Advance(absl::Seconds(1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(clock.Now(), absl::UnixEpoch() + absl::Seconds(4000));
}

TEST(RealClock, IsTheMachinesClock) {
  // Wide, since somebody may set the clock meanwhile.
  EXPECT_LT(absl::AbsDuration(Clock::Real().Now() - absl::Now()), absl::Hours(48));
  EXPECT_EQ(&Clock::Real(), &Clock::Real());
}

}  // namespace
}  // namespace muster
