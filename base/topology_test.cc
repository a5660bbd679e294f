#include "base/topology.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace muster {
namespace {

std::string Groups(const ParallelConfig& config) {
  return absl::StrJoin(
      DeriveGroups(config, Epoch(1)), " ",
      [](std::string* out, const GroupSpec& group) { absl::StrAppend(out, group.DebugString()); });
}

std::vector<GlobalRank> Ranks(const std::vector<int>& ranks) {
  std::vector<GlobalRank> result;
  for (const int rank : ranks) result.emplace_back(rank);
  return result;
}

TEST(DeriveGroups, GivesTheWorkedExampleOfTheDesign) {
  EXPECT_EQ(Groups({.tp = 2, .cp = 2}), "STAGE[0,1,2,3] TP[0,1] TP[2,3] CP[0,2] CP[1,3]");
}

TEST(DeriveGroups, GivesGroupsOfOneRankToo) {
  EXPECT_EQ(Groups({}), "STAGE[0] TP[0] CP[0]");
  EXPECT_EQ(Groups({.cp = 3}), "STAGE[0,1,2] TP[0] TP[1] TP[2] CP[0,1,2]");
  EXPECT_EQ(Groups({.tp = 3}), "STAGE[0,1,2] TP[0,1,2] CP[0] CP[1] CP[2]");
}

TEST(DeriveGroups, KeepsTheStagesOfAPipelineApart) {
  EXPECT_EQ(Groups({.tp = 2, .cp = 2, .pp = 2}),
            "STAGE[0,1,2,3] STAGE[4,5,6,7] TP[0,1] TP[2,3] TP[4,5] TP[6,7] "
            "CP[0,2] CP[1,3] CP[4,6] CP[5,7]");
}

TEST(DeriveGroups, IsTheSameForEveryReplica) {
  EXPECT_EQ(Groups({.tp = 2, .replicas = 1}), Groups({.tp = 2, .replicas = 4}));
}

TEST(DeriveGroups, PutsEveryRankIntoOneGroupOfEachKind) {
  const ParallelConfig config{.tp = 4, .cp = 3, .pp = 2};
  std::set<std::pair<GroupKind, GlobalRank>> seen;
  for (const GroupSpec& group : DeriveGroups(config, Epoch(1))) {
    for (const GlobalRank rank : group.ranks) {
      EXPECT_TRUE(seen.emplace(group.kind, rank).second) << group.DebugString();
    }
  }
  EXPECT_EQ(seen.size(), 3u * static_cast<size_t>(config.world_size()));
}

TEST(DeriveGroups, NamesEachGroupByItsDigest) {
  for (const GroupSpec& group : DeriveGroups({.tp = 2, .cp = 2, .pp = 2}, Epoch(9))) {
    EXPECT_EQ(group.id, DigestGroup(Epoch(9), group.kind, group.ranks)) << group.DebugString();
  }
}

TEST(DigestGroup, IsTheSameInEveryBuild) {
  EXPECT_EQ(DigestGroup(Epoch(5), GroupKind::kCp, Ranks({1, 3})), GroupId(0x0e807f8839d1fcb9));
}

TEST(DigestGroup, DiffersByEpochKindRanksAndTheirOrder) {
  const GroupId id = DigestGroup(Epoch(1), GroupKind::kCp, Ranks({0, 2}));
  EXPECT_NE(id, DigestGroup(Epoch(2), GroupKind::kCp, Ranks({0, 2})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kTp, Ranks({0, 2})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kStage, Ranks({0, 2})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kCp, Ranks({2, 0})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kCp, Ranks({1, 3})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kCp, Ranks({0, 2, 4})));
  EXPECT_NE(id, DigestGroup(Epoch(1), GroupKind::kCp, Ranks({0})));
}

TEST(DigestGroup, TellsEqualSizedGroupsOfEveryEpochApart) {
  std::set<GroupId> ids;
  size_t groups = 0;
  for (uint64_t epoch = 1; epoch <= 50; ++epoch) {
    for (const GroupSpec& group : DeriveGroups({.tp = 4, .cp = 4}, Epoch(epoch))) {
      ids.insert(group.id);
      ++groups;
    }
  }
  EXPECT_EQ(groups, 50u * 9u);
  EXPECT_EQ(ids.size(), groups);
}

TEST(RankCoordinates, TpIsInnermostAndPpOutermost) {
  const ParallelConfig config{.tp = 2, .cp = 3, .pp = 2};
  const RankCoordinates expected = {.pp_rank = 1, .cp_rank = 2, .tp_rank = 1};
  EXPECT_EQ(CoordinatesOf(config, GlobalRank(11)), expected);
  EXPECT_EQ(RankAt(config, {.tp_rank = 1}), GlobalRank(1));
  EXPECT_EQ(RankAt(config, {.cp_rank = 1}), GlobalRank(2));
  EXPECT_EQ(RankAt(config, {.pp_rank = 1}), GlobalRank(6));
}

TEST(RankCoordinates, GoThereAndBackForEveryShape) {
  for (const int tp : {1, 2, 3, 8}) {
    for (const int cp : {1, 2, 5}) {
      for (const int pp : {1, 3}) {
        const ParallelConfig config{.tp = tp, .cp = cp, .pp = pp};
        std::set<std::tuple<int, int, int>> places;
        for (int rank = 0; rank < config.world_size(); ++rank) {
          const RankCoordinates at = CoordinatesOf(config, GlobalRank(rank));
          EXPECT_EQ(RankAt(config, at), GlobalRank(rank));
          EXPECT_TRUE(at.tp_rank < tp && at.cp_rank < cp && at.pp_rank < pp) << rank;
          places.emplace(at.pp_rank, at.cp_rank, at.tp_rank);
        }
        EXPECT_EQ(places.size(), static_cast<size_t>(config.world_size()));
      }
    }
  }
}

TEST(ParallelConfig, AReplicaHasAllStagesAndAStageNoPipeline) {
  const ParallelConfig config{.tp = 2, .cp = 3, .pp = 4, .replicas = 5};
  EXPECT_EQ(config.stage_size(), 6);
  EXPECT_EQ(config.world_size(), 24);
}

TEST(WorkerState, HasANamePerState) {
  EXPECT_STREQ(WorkerStateName(WorkerState::kEnlisted), "ENLISTED");
  EXPECT_STREQ(WorkerStateName(WorkerState::kFailed), "FAILED");
  std::set<std::string> names;
  for (int state = 1; state <= 9; ++state) {
    names.insert(WorkerStateName(static_cast<WorkerState>(state)));
  }
  EXPECT_EQ(names.size(), 9u);
  EXPECT_EQ(names.count("?"), 0u);
}

}  // namespace
}  // namespace muster
