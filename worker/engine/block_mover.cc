#include "worker/engine/block_mover.h"

#include "base/status_macros.h"

namespace muster {

void SealBlocks(const Step& step, int cp_rank, KvArena& arena) {
  for (const StepMove& move : step.moves) {
    if (move.from == cp_rank) arena.Seal(move.from_arena, static_cast<uint64_t>(move.stamp));
  }
}

absl::Status BlockMover::Pull(const Step& step, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  for (const StepMove& move : step.moves) {
    if (move.to != cp_rank_) continue;
    if (stopped_) return absl::AbortedError("the move of KV blocks was given up");
    const KvArenaPeer* const source = sources_[static_cast<size_t>(move.from)].get();
    if (source == nullptr) continue;
    MUSTER_RETURN_IF_ERROR(PullBlock(*source, move.from_arena, static_cast<uint64_t>(move.stamp),
                                     *arena_, move.to_arena, deadline, &stopped_));
  }
  return absl::OkStatus();
}

void BlockMover::Stop() {
  stopped_ = true;
  absl::MutexLock lock(&mu_);
}

}  // namespace muster
