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

TEST(CoreSharing, AfterALongLookTheNextWaitsDoNotSpin) {
  CoreSharing core;
  ASSERT_TRUE(core.MaySpin());
  EXPECT_FALSE(core.MaySpinAfter(kLong));
  for (int i = 0; i < CoreSharing::kWaits; ++i) EXPECT_FALSE(core.MaySpin()) << i;
  EXPECT_TRUE(core.MaySpin()) << "it tries again whether the core is its own";
}

TEST(CoreSharing, ALongLookInAWaitThatDoesNotSpinBeginsTheCountAnew) {
  CoreSharing core;
  core.MaySpinAfter(kLong);
  for (int i = 1; i < CoreSharing::kWaits; ++i) ASSERT_FALSE(core.MaySpin()) << i;
  core.MaySpinAfter(kLong);
  for (int i = 0; i < CoreSharing::kWaits; ++i) EXPECT_FALSE(core.MaySpin()) << i;
  EXPECT_TRUE(core.MaySpin());
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
