#include "worker/collective/workspace_plan.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

std::vector<CollectiveUse> Uses(int hidden, int max_tokens) {
  return {CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, hidden, max_tokens),
          CollectiveUse::CpCombine(/*heads=*/4, /*head_dim=*/64, max_tokens)};
}

std::vector<WorkspacePlan> Plan(const ParallelConfig& config, int self,
                                const std::vector<CollectiveUse>& uses) {
  auto plans = PlanWorkspaces(DeriveGroups(config, Epoch(1)), GlobalRank(self), uses);
  EXPECT_OK(plans);
  return plans.ok() ? *plans : std::vector<WorkspacePlan>();
}

std::vector<GlobalRank> Ranks(std::vector<int> ranks) {
  std::vector<GlobalRank> result;
  for (int rank : ranks) result.push_back(GlobalRank(rank));
  return result;
}

TEST(WorkspacePlanTest, GivesEqualSizedGroupsOfOtherRanksTheirOwn) {
  const auto plans = Plan({.tp = 2, .cp = 2}, 3, Uses(64, 8));
  ASSERT_EQ(plans.size(), 3u);
  EXPECT_EQ(plans[0].ranks, Ranks({0, 1, 2, 3}));
  EXPECT_EQ(plans[0].tag, "workspace/STAGE");
  EXPECT_EQ(plans[1].ranks, Ranks({2, 3}));
  EXPECT_EQ(plans[1].tag, "workspace/TP");
  EXPECT_EQ(plans[2].ranks, Ranks({1, 3}));
  EXPECT_EQ(plans[2].tag, "workspace/CP");
}

TEST(WorkspacePlanTest, SharesOneBetweenGroupsOfTheSameRanks) {
  const auto plans = Plan({.tp = 1, .cp = 2}, 1, Uses(64, 8));
  ASSERT_EQ(plans.size(), 2u);
  EXPECT_EQ(plans[0].ranks, Ranks({0, 1}));
  EXPECT_EQ(plans[0].kinds, (std::vector<GroupKind>{GroupKind::kStage, GroupKind::kCp}));
  EXPECT_EQ(plans[0].tag, "workspace/STAGE+CP");
  EXPECT_EQ(plans[1].ranks, Ranks({1}));
}

TEST(WorkspacePlanTest, MakesOneForTheLonelyRank) {
  const auto plans = Plan({}, 0, Uses(64, 8));
  ASSERT_EQ(plans.size(), 1u);
  EXPECT_EQ(plans[0].tag, "workspace/STAGE+TP+CP");
}

TEST(WorkspacePlanTest, SizesTheSlabForTheLargestUse) {
  const auto plans = Plan({.tp = 1, .cp = 2}, 0, Uses(576, 32));
  EXPECT_EQ(plans[0].slab_bytes, 32u * 576 * 4);
  EXPECT_EQ(plans[1].slab_bytes, kMinSlabBytes);
}

TEST(WorkspacePlanTest, CapsTheSlabAtWholeRows) {
  const uint64_t row = 576 * 4;
  const auto plans = Plan({.tp = 1, .cp = 2}, 0, Uses(576, 100000));
  EXPECT_GE(plans[0].slab_bytes, kMaxSlabBytes / row * row);
  EXPECT_LE(plans[0].slab_bytes, kMaxSlabBytes);
}

TEST(WorkspacePlanTest, SaysHowLongTheLongestMessageIs) {
  const auto plans = Plan({.tp = 1, .cp = 2}, 0, Uses(576, 100000));
  EXPECT_EQ(plans[0].message_bytes, uint64_t{576} * 4 * 100000);
  EXPECT_EQ(plans[1].message_bytes, 0u);
}

TEST(WorkspacePlanTest, FitsARowThatIsLongerThanTheCap) {
  const auto plans = Plan({.tp = 1, .cp = 2}, 0, Uses(1 << 20, 7));
  EXPECT_EQ(plans[0].slab_bytes, uint64_t{4} << 20);
}

TEST(WorkspacePlanTest, RefusesAUseOfAGroupThatTheRankIsNotIn) {
  std::vector<GroupSpec> groups = DeriveGroups({.tp = 2}, Epoch(1));
  std::erase_if(groups, [](const GroupSpec& group) { return group.kind == GroupKind::kCp; });
  EXPECT_STATUS(PlanWorkspaces(groups, GlobalRank(1), Uses(64, 8)),
                absl::StatusCode::kInvalidArgument, "rank 1 is in no group CP");
}

TEST(WorkspacePlanTest, RefusesAUseWithoutRows) {
  EXPECT_STATUS(PlanWorkspaces(DeriveGroups({.tp = 2}, Epoch(1)), GlobalRank(1), Uses(64, 0)),
                absl::StatusCode::kInvalidArgument, "has 0 rows of 256 bytes");
}

}  // namespace
}  // namespace muster
