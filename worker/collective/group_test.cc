#include "worker/collective/group.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

GroupSpec SpecOf(std::vector<int> ranks) {
  GroupSpec spec;
  spec.kind = GroupKind::kCp;
  for (int rank : ranks) spec.ranks.push_back(GlobalRank(rank));
  return spec;
}

TEST(GroupTest, ConvertsRanksByTheirPlaceInTheList) {
  ASSERT_OK_AND_ASSIGN(Group group, Group::Create(SpecOf({5, 1, 3}), GlobalRank(3)));
  EXPECT_EQ(group.rank(), GroupRank(2));
  EXPECT_EQ(group.size(), 3);
  EXPECT_EQ(group.ToGlobal(GroupRank(0)), GlobalRank(5));
  EXPECT_EQ(group.ToGlobal(GroupRank(1)), GlobalRank(1));
  ASSERT_OK_AND_ASSIGN(GroupRank place, group.ToGroup(GlobalRank(5)));
  EXPECT_EQ(place, GroupRank(0));
}

TEST(GroupTest, KnowsNoRankOutsideTheList) {
  ASSERT_OK_AND_ASSIGN(Group group, Group::Create(SpecOf({1, 3}), GlobalRank(1)));
  EXPECT_STATUS(group.ToGroup(GlobalRank(0)), absl::StatusCode::kNotFound,
                "rank 0 is no member of CP[1,3]");
}

TEST(GroupTest, IsRefusedToAStranger) {
  EXPECT_STATUS(Group::Create(SpecOf({1, 3}), GlobalRank(2)), absl::StatusCode::kInvalidArgument,
                "rank 2 is no member of CP[1,3]");
}

TEST(GroupTest, IsRefusedWhenARankStandsTwice) {
  EXPECT_STATUS(Group::Create(SpecOf({1, 3, 1}), GlobalRank(3)), absl::StatusCode::kInvalidArgument,
                "rank 1 stands twice in CP[1,3,1]");
}

}  // namespace
}  // namespace muster
