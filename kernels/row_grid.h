// How the blocks of a grid share rows of so many words of 16 bytes.
#ifndef MUSTER_KERNELS_ROW_GRID_H_
#define MUSTER_KERNELS_ROW_GRID_H_

#include <algorithm>
#include <cstdint>

#include "kernels/peer_exchange.h"

namespace muster {

inline constexpr int kMaxBlockElements = 16384;  // of a row by one block
// Of a row by one thread.
constexpr int MaxThreadWords(int64_t element_bytes) {
  return static_cast<int>(kMaxBlockElements * element_bytes / 16 / kPeerThreads);
}
inline constexpr int kMaxRowWords = kPeerThreads * kMaxRowBlocks * MaxThreadWords(sizeof(float));

struct RowGridPlan {
  int blocks_per_row = 1;
  int threads = 32;
  int words_per_thread = 1;
  int teams = 1;
  bool aligned = true;
};

// Blocks of a grid of `max_blocks` that are resident for sure when so many make a cluster: pairs
// find room wherever there is any, larger clusters may not.
inline int UsableBlocks(int blocks_per_row, int max_blocks) {
  return blocks_per_row <= 2 ? max_blocks : max_blocks / 2;
}

struct RowGridLimits {
  int max_blocks;            // of the grid
  int max_row_blocks;        // of a row: what the device allows, a power of 2 up to kMaxRowBlocks
  int max_threads;           // of a block
  int max_one_word_threads;  // the same where each takes one word of a row
  int max_thread_words;
};

// At least `blocks_per_row` blocks a row, as far as the limits allow; false when the row is too
// long or there is none. Unaligned rows have the most words a thread, which spares kernels.
inline bool PlanRowGrid(int64_t rows, int64_t words, bool aligned, int blocks_per_row,
                        const RowGridLimits& limits, RowGridPlan* plan) {
  if (rows <= 0) return false;
  int blocks = std::min(blocks_per_row, limits.max_row_blocks);
  const int most = limits.max_thread_words;
  while (words > int64_t{blocks} * limits.max_threads * most && blocks < limits.max_row_blocks) {
    blocks *= 2;
  }
  int words_per_thread = aligned ? 1 : most;
  if (words > int64_t{blocks} * limits.max_one_word_threads) {
    words_per_thread = std::max(words_per_thread, 2);
    while (words > int64_t{blocks} * limits.max_threads * words_per_thread) words_per_thread *= 2;
  }
  const int teams = UsableBlocks(blocks, limits.max_blocks) / blocks;
  if (words_per_thread > most || teams == 0) return false;
  if (words_per_thread > 4) words_per_thread = most;  // of which there are kernels
  const int64_t spread = int64_t{blocks} * words_per_thread;
  plan->blocks_per_row = blocks;
  plan->words_per_thread = words_per_thread;
  plan->aligned = aligned;
  plan->threads = static_cast<int>(((words + spread - 1) / spread + 31) / 32 * 32);
  plan->teams = static_cast<int>(rows < teams ? rows : teams);
  return true;
}

// Blocks that share a row, each of which should have `words_per_block` of its words: as long as
// there are blocks for all rows at once, and two where one would have several words for each
// thread.
inline int BlocksPerRow(int64_t rows, int64_t words, int64_t words_per_block,
                        const RowGridLimits& limits) {
  int blocks = limits.max_row_blocks;
  while (blocks > 1 && words <= words_per_block * (blocks / 2)) blocks /= 2;
  const int least = std::min(words > limits.max_one_word_threads ? 2 : 1, limits.max_blocks);
  while (blocks > least && rows * blocks > UsableBlocks(blocks, limits.max_blocks)) blocks /= 2;
  return blocks;
}

}  // namespace muster

#endif  // MUSTER_KERNELS_ROW_GRID_H_
