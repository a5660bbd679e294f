#include "worker/collective/nccl/gpu_reach.h"

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Pair = std::pair<int, int>;

TEST(GpuReach, SaysTheSameDecoded) {
  const GpuReach reach{"a-host", "GPU-1", {"GPU-2", "GPU-3"}};
  ASSERT_OK_AND_ASSIGN(const GpuReach decoded, GpuReach::Decode(reach.Encode()));
  EXPECT_EQ(decoded.host, reach.host);
  EXPECT_EQ(decoded.uuid, reach.uuid);
  EXPECT_EQ(decoded.unreachable, reach.unreachable);
  ASSERT_OK_AND_ASSIGN(const GpuReach lonely, GpuReach::Decode("h,u,"));
  EXPECT_TRUE(lonely.unreachable.empty());
  for (const char* bad : {"", "h", "h,u", ",u,", "h,,", "h,u,v,w"}) {
    EXPECT_STATUS(GpuReach::Decode(bad), absl::StatusCode::kInvalidArgument, "account");
  }
}

TEST(GpuReach, HasNoPairWhereAllReachEachOtherOrAreTheSame) {
  EXPECT_EQ(FirstUnreachable({{"h", "A", {}}, {"h", "A", {}}, {"h", "B", {}}}), std::nullopt);
  EXPECT_EQ(FirstUnreachable({{"h", "A", {"C"}}, {"h", "B", {"C"}}}), std::nullopt);
}

TEST(GpuReach, HasAPairWhereOneOfTwoDoesNotReachTheOther) {
  EXPECT_EQ(FirstUnreachable({{"h", "A", {}}, {"h", "B", {}}, {"h", "C", {"B"}}}), Pair(1, 2));
  EXPECT_EQ(FirstUnreachable({{"h", "A", {"C"}}, {"h", "B", {}}, {"h", "C", {}}}), Pair(0, 2));
}

TEST(GpuReach, HasAPairOnTwoHosts) {
  EXPECT_EQ(FirstUnreachable({{"h", "A", {}}, {"h", "B", {}}, {"i", "A", {}}}), Pair(0, 2));
}

TEST(GpuReach, HostWordIsTheSameTwice) { EXPECT_EQ(HostWord(), HostWord()); }

}  // namespace
}  // namespace muster
