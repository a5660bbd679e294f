#include "kernels/row_grid.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

// Of an element of 2 bytes, and of a group of few ranks.
RowGridLimits Limits(int max_blocks) {
  return {.max_blocks = max_blocks,
          .max_row_blocks = kMaxRowBlocks,
          .max_threads = kPeerThreads,
          .max_one_word_threads = kPeerThreadsOfFewRegisters,
          .max_thread_words = MaxThreadWords(2)};
}

RowGridPlan Plan(int64_t rows, int64_t words, int64_t words_per_block, int max_blocks) {
  const RowGridLimits limits = Limits(max_blocks);
  RowGridPlan plan;
  EXPECT_TRUE(PlanRowGrid(rows, words, true, BlocksPerRow(rows, words, words_per_block, limits),
                          limits, &plan));
  return plan;
}

TEST(RowGrid, EveryWordHasAThreadAndNoGridIsLargerThanIsResident) {
  for (const int element_bytes : {2, 4}) {
    for (const int one_word_threads : {kPeerThreads, kPeerThreadsOfFewRegisters}) {
      for (const int max_row_blocks : {1, kMaxRowBlocks}) {
        for (const int max_blocks : {1, 2, 14, 33, 132}) {
          for (const bool aligned : {true, false}) {
            const RowGridLimits limits{.max_blocks = max_blocks,
                                       .max_row_blocks = max_row_blocks,
                                       .max_threads = kPeerThreads,
                                       .max_one_word_threads = one_word_threads,
                                       .max_thread_words = MaxThreadWords(element_bytes)};
            for (int64_t words = 1; words <= kMaxBlockElements * element_bytes / 16; words += 7) {
              for (const int64_t rows : {1, 8, 33, 132, 2048}) {
                SCOPED_TRACE(::testing::Message()
                             << rows << " rows of " << words << " words, " << element_bytes << " "
                             << one_word_threads << " " << max_row_blocks << " " << max_blocks);
                RowGridPlan plan;
                const int blocks = BlocksPerRow(rows, words, 128, limits);
                ASSERT_TRUE(PlanRowGrid(rows, words, aligned, blocks, limits, &plan));
                ASSERT_LE(plan.teams * plan.blocks_per_row, max_blocks);
                ASSERT_LE(plan.teams, rows);
                ASSERT_LE(plan.words_per_thread, limits.max_thread_words);
                ASSERT_LE(plan.threads,
                          plan.words_per_thread == 1 ? one_word_threads : kPeerThreads);
                ASSERT_GE(int64_t{plan.threads} * plan.blocks_per_row * plan.words_per_thread,
                          words);
              }
            }
          }
        }
      }
    }
  }
}

TEST(RowGrid, FewRowsAreSharedByAsManyBlocksAsThereAreForAllOfThem) {
  EXPECT_EQ(Plan(1, 512, 128, 132).blocks_per_row, 4);
  EXPECT_EQ(Plan(32, 512, 128, 132).blocks_per_row, 2) << "more than pairs have half of the blocks";
  EXPECT_EQ(Plan(128, 512, 128, 132).blocks_per_row, 1);
  EXPECT_EQ(Plan(128, 512, 128, 132).threads, 512);
}

TEST(RowGrid, LongRowsAreSharedByTwoBlocksBeforeAThreadHasSeveralWords) {
  const RowGridPlan plan = Plan(512, 896, 128, 132);
  EXPECT_EQ(plan.blocks_per_row, 2);
  EXPECT_EQ(plan.words_per_thread, 1);
  EXPECT_EQ(plan.threads, 448);
  EXPECT_EQ(plan.teams, 66);
}

TEST(RowGrid, RefusesARowThatIsTooLong) {
  RowGridPlan plan;
  const RowGridLimits limits = Limits(132);
  const int64_t most = int64_t{kMaxRowBlocks} * kPeerThreads * limits.max_thread_words;
  EXPECT_TRUE(PlanRowGrid(1, most, true, 1, limits, &plan));
  EXPECT_FALSE(PlanRowGrid(1, most + 1, true, 1, limits, &plan));
  EXPECT_FALSE(PlanRowGrid(0, 1, true, 1, limits, &plan)) << "no rows";
}

}  // namespace
}  // namespace muster
