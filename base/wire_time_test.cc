#include "base/wire_time.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

google::protobuf::Duration Wire(int64_t seconds, int32_t nanos) {
  google::protobuf::Duration wire;
  wire.set_seconds(seconds);
  wire.set_nanos(nanos);
  return wire;
}

TEST(WireDuration, GoesThereAndBackToTheNanosecond) {
  for (const absl::Duration duration : {absl::ZeroDuration(), absl::Nanoseconds(1),
                                        absl::Milliseconds(1500), absl::Hours(24 * 365 * 1000)}) {
    EXPECT_EQ(FromWire(ToWire(duration)), duration);
  }
  EXPECT_EQ(ToWire(absl::Milliseconds(-1500)).seconds(), -1);
  EXPECT_EQ(ToWire(absl::Milliseconds(-1500)).nanos(), -500'000'000);
}

TEST(WireDuration, AnInfiniteOneIsTheLongestThatTheMessageHolds) {
  EXPECT_EQ(ToWire(absl::InfiniteDuration()).seconds(), 315'576'000'000);
  EXPECT_EQ(ToWire(-absl::InfiniteDuration()).seconds(), -315'576'000'000);
  EXPECT_EQ(ToWire(absl::InfiniteDuration()).nanos(), 0);
}

TEST(WireDuration, IsNeverReadAsNegative) {
  EXPECT_EQ(FromWire(Wire(-1, 0)), absl::ZeroDuration());
  EXPECT_EQ(FromWire(Wire(0, -1)), absl::ZeroDuration());
  EXPECT_EQ(
      FromWire(Wire(std::numeric_limits<int64_t>::min(), std::numeric_limits<int32_t>::min())),
      absl::ZeroDuration());
}

TEST(WireTimeout, IsReadUpToTheLongest) {
  ASSERT_OK_AND_ASSIGN(const absl::Duration shortest, TimeoutFromWire(Wire(0, 1), absl::Hours(1)));
  EXPECT_EQ(shortest, absl::Nanoseconds(1));
  ASSERT_OK_AND_ASSIGN(const absl::Duration longest,
                       TimeoutFromWire(Wire(3600, 0), absl::Hours(1)));
  EXPECT_EQ(longest, absl::Hours(1));
}

TEST(WireTimeout, RefusesWhatIsNotBetweenZeroAndTheLongest) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const google::protobuf::Duration& wire :
       {Wire(0, 0), Wire(-1, 0), Wire(0, -1), Wire(-kMost, 0), Wire(3600, 1), Wire(3601, 0),
        Wire(315'576'000'001, 0), Wire(kMost, 0), Wire(kMost, 999'999'999),
        ToWire(absl::InfiniteDuration()), ToWire(-absl::InfiniteDuration())}) {
    EXPECT_STATUS(TimeoutFromWire(wire, absl::Hours(1)), kInvalid,
                  "; it can be up to 1h and must be positive");
  }
}

TEST(WireTimeout, RefusesNanosecondsThatTheMessageMayNotHold) {
  for (const google::protobuf::Duration& wire :
       {Wire(1, 1'000'000'000), Wire(1, -1), Wire(1, std::numeric_limits<int32_t>::max()),
        Wire(2, std::numeric_limits<int32_t>::min())}) {
    EXPECT_STATUS(TimeoutFromWire(wire, absl::Hours(1)), kInvalid, "timeout") << wire.nanos();
  }
}

TEST(WireTimestamp, HoldsSecondsAndNanosecondsOfEveryYear) {
  const absl::Time time = absl::FromUnixSeconds(1'700'000'000) + absl::Nanoseconds(5);
  EXPECT_EQ(ToWire(time).seconds(), 1'700'000'000);
  EXPECT_EQ(ToWire(time).nanos(), 5);
  const absl::Time before = absl::FromUnixSeconds(-2) + absl::Nanoseconds(5);
  EXPECT_EQ(ToWire(before).seconds(), -2);
  EXPECT_EQ(ToWire(before).nanos(), 5);
}

TEST(WireTimestamp, StaysWithinTheYearsThatTheMessageHolds) {
  EXPECT_EQ(ToWire(absl::InfiniteFuture()).seconds(), 253'402'300'799);
  EXPECT_EQ(ToWire(absl::InfinitePast()).seconds(), -62'135'596'800);
  EXPECT_EQ(ToWire(absl::InfiniteFuture()).nanos(), 0);
}

TEST(DeadlineAfter, IsSoFarFromNowAndAtMostAYear) {
  const auto before = std::chrono::system_clock::now();
  EXPECT_GE(DeadlineAfter(absl::Seconds(3)), before + std::chrono::seconds(3));
  EXPECT_LT(DeadlineAfter(absl::Seconds(3)),
            std::chrono::system_clock::now() + std::chrono::seconds(4));
  EXPECT_GT(DeadlineAfter(absl::InfiniteDuration()), before + std::chrono::hours(364 * 24));
  EXPECT_LT(DeadlineAfter(-absl::InfiniteDuration()), before);
}

}  // namespace
}  // namespace muster
