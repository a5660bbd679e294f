// One rank's part in moving KV blocks from one epoch to the next.
#ifndef MUSTER_WORKER_ENGINE_BLOCK_MOVER_H_
#define MUSTER_WORKER_ENGINE_BLOCK_MOVER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/cache/kv_arena.h"
#include "worker/engine/step.h"

namespace muster {

// Seals what leaves this rank. Used by the thread that runs the epoch's steps, once they have ended
// on the device, so that a block is sealed exactly as the steps before it left it. Errors of the
// arena's copier.
absl::Status SealBlocks(const Step& step, int cp_rank, KvArena& arena);

// Copies what comes to this rank of the next epoch. A block counts only once its bytes have the
// digest that its source sealed it with.
class BlockMover {
 public:
  // By cp rank of the former epoch: the arena there of this rank's tp rank; null where it is this
  // rank's own, from which nothing has to be copied.
  using Sources = std::vector<std::unique_ptr<KvArenaPeer>>;
  BlockMover(int cp_rank, std::shared_ptr<KvArena> arena, Sources sources)
      : cp_rank_(cp_rank), arena_(std::move(arena)), sources_(std::move(sources)) {}

  // Copies the step's blocks, and waits for their seals. `deadline`, by Clock::Real(), bounds it
  // all. DATA_LOSS (KV_CORRUPT: a copy is not what was sealed), DEADLINE_EXCEEDED (a seal is
  // missing), ABORTED (stopped), errors of the arena's copier.
  absl::Status Pull(const Step& step, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);

  // Returns when nothing is being copied; from now on nothing is. Any thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const int cp_rank_;
  const std::shared_ptr<KvArena> arena_;
  const Sources sources_;
  std::atomic<bool> stopped_{false};
  absl::Mutex mu_;  // held while blocks are copied
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_BLOCK_MOVER_H_
