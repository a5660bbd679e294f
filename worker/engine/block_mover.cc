#include "worker/engine/block_mover.h"

namespace muster {

absl::Status SealBlocks(const Step& step, int cp_rank, KvArena& arena) {
  std::vector<BlockSeal> seals;
  for (const StepMove& move : step.moves) {
    if (move.from != cp_rank) continue;
    seals.push_back({.block = move.from_arena, .stamp = static_cast<uint64_t>(move.stamp)});
  }
  return arena.Seal(seals);
}

absl::Status BlockMover::Pull(const Step& step, absl::Time deadline) {
  std::vector<BlockPull> pulls;
  for (const StepMove& move : step.moves) {
    if (move.to != cp_rank_) continue;
    const KvArenaPeer* const source = sources_[static_cast<size_t>(move.from)].get();
    if (source == nullptr) continue;
    pulls.push_back({.from = source,
                     .seal = {.block = move.from_arena, .stamp = static_cast<uint64_t>(move.stamp)},
                     .to_block = move.to_arena});
  }
  absl::MutexLock lock(&mu_);
  return PullBlocks(pulls, *arena_, deadline, &stopped_);
}

void BlockMover::Stop() {
  stopped_ = true;
  absl::MutexLock lock(&mu_);
}

}  // namespace muster
