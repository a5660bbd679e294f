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
    : blocks_per_rank_(blocks_per_rank), cp_(cp) {
  GrowPlaces(cp);
}

void KvBlockAllocator::AddPlace() {
  std::vector<int32_t>& free = free_.emplace_back();
  // The lowest ids are on top.
  for (int64_t id = blocks_per_rank_ - 1; id >= 0; --id) free.push_back(static_cast<int32_t>(id));
  holders_.emplace_back(blocks_per_rank_, 0);
}

void KvBlockAllocator::GrowPlaces(int places) {
  while (static_cast<int>(free_.size()) < places) AddPlace();
}

void KvBlockAllocator::Return(int place, int32_t local) {
  holders_[place][local] = 0;
  free_[place].push_back(local);
}

absl::StatusOr<int32_t> KvBlockAllocator::Reserve(int place) {
  if (free_[place].empty()) {
    int64_t free = 0;
    for (const std::vector<int32_t>& ids : free_) free += static_cast<int64_t>(ids.size());
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("cp rank ", place, " has no free KV block left of ", blocks_per_rank_,
                     " for those that are to move there; in all ", free, " of ",
                     blocks_per_rank_ * static_cast<int64_t>(free_.size()), " are free"),
        {.reason = ErrorReason::kKvCapacity});
  }
  const int32_t local = free_[place].back();
  free_[place].pop_back();
  holders_[place][local] = kReserved;
  return local;
}

absl::Status KvBlockAllocator::CheckMoves(absl::Span<const BlockMove> moves) const {
  std::set<std::pair<int, int32_t>> sources, targets;
  for (const BlockMove& move : moves) {
    if (HasBlock(move.from, move.from_local) && HasBlock(move.to, move.to_local) &&
        holders(move.from, move.from_local) > 0 && holders(move.to, move.to_local) == kReserved &&
        sources.insert({move.from, move.from_local}).second &&
        targets.insert({move.to, move.to_local}).second) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat("KV block ", move.from_local, " of cp rank ",
                                                   move.from, " cannot become block ",
                                                   move.to_local, " of cp rank ", move.to));
  }
  return absl::OkStatus();
}

absl::Status KvBlockAllocator::CheckDropped(int cp, absl::Span<const BlockMove> moves) const {
  std::set<std::pair<int, int32_t>> emptied, filled;
  for (const BlockMove& move : moves) {
    emptied.insert({move.from, move.from_local});
    filled.insert({move.to, move.to_local});
  }
  for (int place = cp; place < static_cast<int>(free_.size()); ++place) {
    for (int32_t id = 0; id < static_cast<int32_t>(blocks_per_rank_); ++id) {
      const int32_t has = holders(place, id);
      if (has == 0 || emptied.contains({place, id})) continue;
      const bool held = has > 0 || filled.contains({place, id});
      return absl::InvalidArgumentError(absl::StrCat(
          "cp rank ", place, " still ", held ? "holds" : "reserves", " KV block ", id));
    }
  }
  return absl::OkStatus();
}

absl::Status KvBlockAllocator::Redeal(int cp, absl::Span<const BlockMove> moves) {
  if (cp < 1) return absl::InvalidArgumentError(absl::StrCat("KV blocks over ", cp, " cp ranks"));
  MUSTER_RETURN_IF_ERROR(CheckMoves(moves));
  MUSTER_RETURN_IF_ERROR(CheckDropped(cp, moves));
  for (const BlockMove& move : moves) {
    holders_[move.to][move.to_local] = holders_[move.from][move.from_local];
    Return(move.from, move.from_local);
  }
  GrowPlaces(cp);
  free_.resize(static_cast<size_t>(cp));
  holders_.resize(static_cast<size_t>(cp));
  cp_ = cp;
  return absl::OkStatus();
}

int64_t KvBlockAllocator::free_blocks() const {
  int64_t total = 0;
  for (int rank = 0; rank < cp(); ++rank) total += free_blocks(rank);
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
  std::vector<int64_t> needed(static_cast<size_t>(cp()), 0);
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
    if (--holders_[rank][block.local] == 0) Return(rank, block.local);
  }
  return absl::OkStatus();
}

}  // namespace muster
