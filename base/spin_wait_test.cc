#include "base/spin_wait.h"

#include <gtest/gtest.h>

#include <thread>

namespace muster {
namespace {

constexpr int64_t kShort = CoreSharing::kAwayNs - 1;
constexpr int64_t kLong = CoreSharing::kAwayNs;

TEST(CoreSharing, SpinsWhileLooksAreShort) {
  CoreSharing core;
  EXPECT_TRUE(core.MaySpin());
  EXPECT_TRUE(core.MaySpinAfter(kShort));
  EXPECT_TRUE(core.MaySpin());
}

// How many waits do not spin.
int Sleeps(CoreSharing& core) {
  int sleeps = 0;
  while (!core.MaySpin()) ++sleeps;
  return sleeps;
}

TEST(CoreSharing, AfterALongLookSomeWaitsDoNotSpin) {
  CoreSharing core;
  ASSERT_TRUE(core.MaySpin());
  EXPECT_FALSE(core.MaySpinAfter(kLong));
  EXPECT_EQ(Sleeps(core), CoreSharing::kFewest) << "then it tries again";
}

TEST(CoreSharing, TheyAreTwiceAsManyWhereTryingLosesTheCoreAgain) {
  CoreSharing core;
  core.MaySpinAfter(kLong);
  for (int sleeps = CoreSharing::kFewest; sleeps < CoreSharing::kMost; sleeps *= 2) {
    EXPECT_EQ(Sleeps(core), sleeps);
    core.MaySpinAfter(kLong);
  }
  EXPECT_EQ(Sleeps(core), CoreSharing::kMost);
  core.MaySpinAfter(kLong);
  EXPECT_EQ(Sleeps(core), CoreSharing::kMost) << "but no more than that";
}

TEST(CoreSharing, AndFewAgainAfterWaitsThatSpunWell) {
  CoreSharing core;
  for (int i = 0; i < 3; ++i) {
    core.MaySpinAfter(kLong);
    Sleeps(core);
  }
  for (int i = 0; i < CoreSharing::kSoon; ++i) ASSERT_TRUE(core.MaySpin());
  core.MaySpinAfter(kLong);
  EXPECT_EQ(Sleeps(core), CoreSharing::kFewest);
}

// On a thread of its own, whose core_sharing is new.
template <typename Test>
void OnNewThread(Test test) {
  std::thread(test).join();
}

TEST(SpinUntil, EndsAsSoonAsItIsReady) {
  OnNewThread([] {
    int looks = 0;
    EXPECT_TRUE(SpinUntil(0, [&looks] { return ++looks == 1; })) << "it was before";
    looks = 0;
    EXPECT_TRUE(SpinUntil(50'000, [&looks] { return ++looks == 2; }));
  });
}

TEST(SpinUntil, EndsWithItsPatience) {
  OnNewThread([] {
    const int64_t begun = SteadyNowNs();
    EXPECT_FALSE(SpinUntil(50'000, [] { return false; }));
    EXPECT_GE(SteadyNowNs() - begun, 50'000);
  });
}

TEST(SpinUntil, ALookThatTookLongIsTheLast) {
  OnNewThread([] {
    int looks = 0;
    const auto slow = [&looks] {
      ++looks;
      const int64_t begun = SteadyNowNs();
      while (SteadyNowNs() - begun < kLong) CpuRelax();
      return false;
    };
    EXPECT_FALSE(SpinUntil(INT64_MAX, slow)) << "however long it would have waited";
    EXPECT_LT(looks, 10);
    EXPECT_FALSE(core_sharing.MaySpin());
  });
}

}  // namespace
}  // namespace muster
