#ifndef MUSTER_WORKER_CACHE_BLOCK_ALLOCATOR_H_
#define MUSTER_WORKER_CACHE_BLOCK_ALLOCATOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace muster {

// Tokens of a KV block.
inline constexpr int kKvBlockTokens = 16;

// Blocks that a sequence of `tokens` tokens takes.
constexpr int64_t KvBlocksFor(int64_t tokens) {
  return (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

// An allocated block, number `logical` of its sequence: it lives on cp rank logical % cp, at index
// logical / cp of the sequence's table there, in arena block `local`.
struct BlockGrant {
  int64_t logical = 0;
  int32_t local = 0;
  friend bool operator==(const BlockGrant&, const BlockGrant&) = default;
};

// A sequence that has `from` tokens and is to have `to`.
struct KvGrowth {
  int64_t from = 0;
  int64_t to = 0;
  // One of its blocks that it shares and is going to write: it gets another in its place, before
  // the new ones. -1: none.
  int64_t replaced = -1;
};

// A block that goes to another cp rank, by the local ids on both.
struct BlockMove {
  int from = 0;
  int32_t from_local = 0;
  int to = 0;
  int32_t to_local = 0;
};

// Which arena blocks are free, for all ranks of a replica; held by its leader alone. One free list
// per cp rank, whose local ids are the same over its tp ranks. Sequences may share blocks: one is
// free again when its last holder has freed it. Pure policy: touches no memory of a device. Not
// thread-safe.
class KvBlockAllocator {
 public:
  // Both at least 1. All arenas have the same number of blocks.
  KvBlockAllocator(int cp, int64_t blocks_per_rank);

  // The new blocks of each growth, in their order; all or nothing. RESOURCE_EXHAUSTED (reason
  // kKvCapacity) when a rank has too few free blocks: names how many are needed and free.
  // INVALID_ARGUMENT: a growth that shrinks or begins below 0.
  absl::StatusOr<std::vector<std::vector<BlockGrant>>> Allocate(absl::Span<const KvGrowth> growths);

  // One more holder of each of these blocks. INVALID_ARGUMENT when one is not allocated; nothing
  // has changed then.
  absl::Status Share(absl::Span<const BlockGrant> blocks);
  // One holder less of each of these blocks. INVALID_ARGUMENT when one is not allocated, or stands
  // here twice; nothing is freed then.
  absl::Status Free(absl::Span<const BlockGrant> blocks);
  // Whether an allocated block has several holders.
  bool IsShared(const BlockGrant& block) const {
    return holders_[RankOf(block.logical)][block.local] > 1;
  }

  // Changing cp. GrowPlaces, then Reserve for each block that is to move, at last Redeal; until
  // then blocks are dealt as before, and all the rest of this class speaks of that.

  // Makes room for the blocks of further cp ranks, which are free.
  void GrowPlaces(int places);
  // A free block of any place, kept for a move. RESOURCE_EXHAUSTED (reason kKvCapacity).
  absl::StatusOr<int32_t> Reserve(int place);
  // Of a block that was reserved and is not moved to after all; nothing where it is not reserved.
  void Unreserve(int place, int32_t local) {
    if (holders(place, local) == kReserved) Return(place, local);
  }
  // Holders of a block; 0 where it is free, -1 where it is reserved.
  int holders(int place, int32_t local) const { return holders_[place][local]; }
  // The holders of each source become those of its reserved target; then blocks are dealt over
  // `cp`, and the places beyond are dropped. What else is reserved stays so. INVALID_ARGUMENT when
  // cp is below 1, a source is not held, a target not reserved, either stands here twice, or a
  // place to be dropped is not empty; nothing has changed then.
  absl::Status Redeal(int cp, absl::Span<const BlockMove> moves);

  int cp() const { return cp_; }
  int64_t total_blocks() const { return blocks_per_rank_ * cp(); }
  int64_t free_blocks() const;
  int64_t free_blocks(int cp_rank) const {
    return static_cast<int64_t>(free_[static_cast<size_t>(cp_rank)].size());
  }
  // The longest new sequence, in tokens, that fits the blocks free now; and the longest that fits
  // an empty cache.
  int64_t LargestAdmissible() const;
  int64_t Capacity() const { return total_blocks() * kKvBlockTokens; }

 private:
  static constexpr int32_t kReserved = -1;  // in holders_

  int RankOf(int64_t logical) const { return static_cast<int>(logical % cp()); }
  absl::Status CheckFits(absl::Span<const KvGrowth> growths) const;
  absl::Status CheckAllocated(absl::Span<const BlockGrant> blocks) const;
  absl::Status CheckMoves(absl::Span<const BlockMove> moves) const;
  // Whether nothing is left in places from `cp` on once `moves` are made.
  absl::Status CheckDropped(int cp, absl::Span<const BlockMove> moves) const;
  bool HasBlock(int place, int32_t local) const {
    return place >= 0 && place < static_cast<int>(free_.size()) && local >= 0 &&
           local < blocks_per_rank_;
  }
  BlockGrant Take(int64_t logical);
  void Return(int place, int32_t local);
  void AddPlace();

  int64_t blocks_per_rank_;
  int cp_;  // over which blocks are dealt; at most the number of places
  std::vector<std::vector<int32_t>> free_;  // [cp rank]: stack of local ids
  // [cp rank][local id]: how many; 0 where it is free, -1 where it is reserved.
  std::vector<std::vector<int32_t>> holders_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_CACHE_BLOCK_ALLOCATOR_H_
