#include "worker/cache/block_allocator.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {

KvBlockAllocator::KvBlockAllocator(int cp, int64_t blocks_per_rank)
    : blocks_per_rank_(blocks_per_rank), free_(cp), holders_(cp) {
  for (int rank = 0; rank < cp; ++rank) {
    // The lowest ids are on top.
    for (int64_t id = blocks_per_rank - 1; id >= 0; --id) {
      free_[rank].push_back(static_cast<int32_t>(id));
    }
    holders_[rank].resize(blocks_per_rank, 0);
  }
}

int64_t KvBlockAllocator::free_blocks() const {
  int64_t total = 0;
  for (const std::vector<int32_t>& ids : free_) total += static_cast<int64_t>(ids.size());
  return total;
}

int64_t KvBlockAllocator::LargestAdmissible() const {
  // Rank r holds blocks r, r + cp, ...: with f of them free it first lacks block f * cp + r.
  int64_t blocks = total_blocks();
  for (int rank = 0; rank < cp(); ++rank) {
    blocks = std::min(blocks, free_blocks(rank) * cp() + rank);
  }
  return blocks * kKvBlockTokens;
}

absl::Status KvBlockAllocator::CheckFits(absl::Span<const KvGrowth> growths) const {
  std::vector<int64_t> needed(free_.size(), 0);
  for (const KvGrowth& growth : growths) {
    if (growth.from < 0 || growth.to < growth.from) {
      return absl::InvalidArgumentError(
          absl::StrCat("a sequence cannot grow from ", growth.from, " to ", growth.to, " tokens"));
    }
    // Blocks below `end` that rank r holds: (end - r + cp - 1) / cp.
    const auto held = [&](int64_t end, int rank) { return (end - rank + cp() - 1) / cp(); };
    for (int rank = 0; rank < cp(); ++rank) {
      needed[rank] += held(KvBlocksFor(growth.to), rank) - held(KvBlocksFor(growth.from), rank);
    }
    if (growth.replaced >= 0) ++needed[RankOf(growth.replaced)];
  }
  for (int rank = 0; rank < cp(); ++rank) {
    if (needed[rank] <= free_blocks(rank)) continue;
    const int64_t total = std::accumulate(needed.begin(), needed.end(), int64_t{0});
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(total, " KV blocks are needed, ", needed[rank], " of them on cp rank ", rank,
                     ", where ", free_blocks(rank), " of ", blocks_per_rank_, " are free; in all ",
                     free_blocks(), " of ", total_blocks(), " are free"),
        {.reason = ErrorReason::kKvCapacity});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<BlockGrant>>> KvBlockAllocator::Allocate(
    absl::Span<const KvGrowth> growths) {
  MUSTER_RETURN_IF_ERROR(CheckFits(growths));
  std::vector<std::vector<BlockGrant>> result;
  for (const KvGrowth& growth : growths) {
    std::vector<BlockGrant>& blocks = result.emplace_back();
    if (growth.replaced >= 0) blocks.push_back(Take(growth.replaced));
    for (int64_t b = KvBlocksFor(growth.from); b < KvBlocksFor(growth.to); ++b) {
      blocks.push_back(Take(b));
    }
  }
  return result;
}

BlockGrant KvBlockAllocator::Take(int64_t logical) {
  const int rank = RankOf(logical);
  const int32_t id = free_[rank].back();
  free_[rank].pop_back();
  holders_[rank][id] = 1;
  return {.logical = logical, .local = id};
}

absl::Status KvBlockAllocator::CheckAllocated(absl::Span<const BlockGrant> blocks) const {
  std::set<std::pair<int, int32_t>> seen;
  for (const BlockGrant& block : blocks) {
    const bool known = block.logical >= 0 && block.local >= 0 && block.local < blocks_per_rank_ &&
                       holders_[RankOf(block.logical)][block.local] > 0;
    if (!known || !seen.insert({RankOf(block.logical), block.local}).second) {
      return absl::InvalidArgumentError(absl::StrCat("KV block ", block.logical, " in arena block ",
                                                     block.local, " is not allocated"));
    }
  }
  return absl::OkStatus();
}

absl::Status KvBlockAllocator::Share(absl::Span<const BlockGrant> blocks) {
  MUSTER_RETURN_IF_ERROR(CheckAllocated(blocks));
  for (const BlockGrant& block : blocks) ++holders_[RankOf(block.logical)][block.local];
  return absl::OkStatus();
}

absl::Status KvBlockAllocator::Free(absl::Span<const BlockGrant> blocks) {
  MUSTER_RETURN_IF_ERROR(CheckAllocated(blocks));
  for (const BlockGrant& block : blocks) {
    const int rank = RankOf(block.logical);
    if (--holders_[rank][block.local] == 0) free_[rank].push_back(block.local);
  }
  return absl::OkStatus();
}

}  // namespace muster
