#include "worker/collective/ipc/ipc_layout.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

WorkspacePlan PlanOf(int ranks, int hidden, int tokens) {
  GroupSpec group;
  group.kind = GroupKind::kStage;
  for (int rank = 0; rank < ranks; ++rank) group.ranks.push_back(GlobalRank(rank));
  const auto plans = PlanWorkspaces(
      {group}, GlobalRank(0), {CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, hidden, tokens)});
  EXPECT_TRUE(plans.ok()) << plans.status();
  return plans->front();
}

TEST(IpcLayoutTest, TakesAtMost130MiBForEightRanksAndLongPrefills) {
  const PeerLayout layout = IpcLayoutOf(PlanOf(8, 7168, 2048));
  EXPECT_LE(layout.Bytes(), 130 * kMiB);
  EXPECT_GE(layout.slice_bytes, int64_t{2048} * 7168 * 2) << "in one piece of 16 bits";
}

TEST(IpcLayoutTest, CapsTheSlotsOfOneShotWhateverTheRanks) {
  for (const int ranks : {2, 3, 4, 8, 16}) {
    const PeerLayout layout = IpcLayoutOf(PlanOf(ranks, 7168, 8192));
    EXPECT_LE(layout.ScatterOffset(), PeerLayout::kHeaderBytes + 16 * kMiB + 2 * 256 * ranks);
    EXPECT_GE(layout.slot_bytes, int64_t{16384} * 4) << "the longest row";
    EXPECT_EQ(layout.slot_bytes % 256, 0);
    EXPECT_EQ(layout.slice_bytes % 256, 0);
  }
}

TEST(IpcLayoutTest, TakesNoMoreThanTheMessagesOfASmallModel) {
  const PeerLayout layout = IpcLayoutOf(PlanOf(2, 576, 32));
  EXPECT_EQ(layout.slot_bytes, 32 * 576 * 4);
  EXPECT_EQ(layout.slice_bytes, 32 * 576 * 4);
}

TEST(IpcLayoutTest, FitsASlabWithoutAKnownMessage) {
  WorkspacePlan plan = PlanOf(3, 64, 1);
  plan.slab_bytes = 40'000;
  plan.message_bytes = 0;
  EXPECT_GE(IpcLayoutOf(plan).slot_bytes, 40'000);
  EXPECT_GE(IpcLayoutOf(plan).slice_bytes, 40'000);
}

}  // namespace
}  // namespace muster
