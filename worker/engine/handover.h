// What an epoch of a worker and the one that follows it there have to do with each other.
#ifndef MUSTER_WORKER_ENGINE_HANDOVER_H_
#define MUSTER_WORKER_ENGINE_HANDOVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/cache/kv_arena.h"
#include "worker/engine/block_mover.h"
#include "worker/engine/engine.h"
#include "worker/model/loaded_model.h"

namespace muster {

// On a worker with a rank in both. The former epoch makes it while it serves and goes on serving;
// the next one uses it while it is prepared. It ends when the next one serves, or either ends.
// Thread-safe.
class Handover : public std::enable_shared_from_this<Handover> {
 public:
  // Of the former epoch. What is shared keeps itself alive, but for the loaded model, of which
  // nothing may be used that Use does not cover.
  struct Estate {
    std::shared_ptr<KvArena> arena;
    std::vector<std::string> arena_handles;  // by rank
    const LoadedModel* loaded = nullptr;
    std::shared_ptr<Engine> engine;  // on its leader
    absl::Duration longest_slot = absl::Seconds(5);
    // On its leader's own thread: it hands over, and nothing that befalls it from then on matters
    // to anybody; or the reason why it has ended.
    std::function<absl::Status()> pass_on = [] { return absl::OkStatus(); };
  };
  explicit Handover(Estate estate) : estate_(std::move(estate)) {}

  const Estate& estate() const { return estate_; }

  // The next epoch's preparing thread.

  // Runs `use`, during which the former epoch is not given back; the reason of its end otherwise.
  absl::Status Use(absl::FunctionRef<absl::Status()> use) ABSL_LOCKS_EXCLUDED(mu_);
  // Runs `work`, which computes on the device together with the next epoch's other ranks, while no
  // step of the former epoch runs on any rank that is in both. All those ranks call it alike. The
  // reason of an end; DEADLINE_EXCEEDED when the former epoch's steps do not make way.
  absl::Status BetweenSteps(absl::FunctionRef<absl::Status()> work) ABSL_LOCKS_EXCLUDED(mu_);

  // The former epoch's own thread.

  // Makes way for BetweenSteps: returns when it is through, or nobody comes any more. It gives the
  // next epoch up when that takes longer than the longest slot.
  void Park() ABSL_LOCKS_EXCLUDED(mu_);
  // After it has handed over: until the next epoch serves here, or is over as well.
  void AwaitLeft() ABSL_LOCKS_EXCLUDED(mu_);

  // Any thread.

  // What to call when the former epoch ends first, or finds the next one at fault; and what stops
  // the copying of blocks to this rank.
  void SetSuccessor(std::function<void(const absl::Status&)> abort) ABSL_LOCKS_EXCLUDED(mu_);
  void SetMover(std::shared_ptr<BlockMover> mover) ABSL_LOCKS_EXCLUDED(mu_);
  // The former epoch was told that the next one will not serve: nothing is copied here any more.
  void StopMoves() ABSL_LOCKS_EXCLUDED(mu_);

  // The next epoch will not serve: nobody waits for a slot any more.
  void GiveUp(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);
  // The next epoch is over, or serves: nobody waits for it any more, nor aborts it once this has
  // returned.
  void Leave() ABSL_LOCKS_EXCLUDED(mu_);
  bool left() const ABSL_LOCKS_EXCLUDED(mu_);
  // The former epoch is over: aborts the next one unless it has left. Does not block.
  void Close(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);
  // After Close: waits until nothing of the former epoch is in use.
  void AwaitUnused() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void AbortSuccessor(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether nobody comes any more.
  bool over() const ABSL_LOCKS_EXCLUDED(mu_);
  // Has the leader stamp a slot for all ranks.
  void AskForSlot();
  absl::Status AwaitSlot() ABSL_LOCKS_EXCLUDED(mu_);

  const Estate estate_;

  mutable absl::Mutex mu_;
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
  bool left_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status given_up_ ABSL_GUARDED_BY(mu_);  // the next epoch; the former one goes on
  int users_ ABSL_GUARDED_BY(mu_) = 0;
  int aborting_ ABSL_GUARDED_BY(mu_) = 0;  // calls of abort_ under way
  // Slots so far: asked for, granted, and come to an end. Two may follow each other faster than
  // whoever grants them looks.
  int asked_ ABSL_GUARDED_BY(mu_) = 0;
  int granted_ ABSL_GUARDED_BY(mu_) = 0;
  int ended_ ABSL_GUARDED_BY(mu_) = 0;
  std::function<void(const absl::Status&)> abort_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<BlockMover> mover_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_HANDOVER_H_
