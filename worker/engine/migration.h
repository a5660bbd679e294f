// How the leader brings its sequences from the epoch that serves to the next one.
#ifndef MUSTER_WORKER_ENGINE_MIGRATION_H_
#define MUSTER_WORKER_ENGINE_MIGRATION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/takeover.h"
#include "base/topology.h"
#include "worker/engine/engine.h"
#include "worker/engine/handover.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/step.h"

namespace muster {

// Three threads take part, all of the leader. The former epoch's own thread decides, between its
// steps: it plans parts, has them sealed, and at last holds and switches, or resumes. The next
// epoch's own thread has each part copied by all ranks. Its preparing thread waits for the end.
//
//   former epoch  ..step, seal, step, seal, step, HOLD, seal, SWITCH
//   next epoch          copy        copy              copy         | rebuild, step..
//                                              |<------ pause ------------>|
class Migration : public std::enable_shared_from_this<Migration> {
 public:
  struct Options {
    Epoch epoch;  // the next one
    NextDeal next;
    uint64_t block_bytes = 0;  // of one rank
    uint64_t part_bytes = 0;   // that are sealed between two steps, about
    std::vector<SequenceName> drop;
    std::function<void(const Progress&)> on_progress = [](const Progress&) {};
  };
  Migration(Options options, std::shared_ptr<Handover> handover);

  // The preparing thread. Starts, and waits until the next epoch serves or it is sure that it never
  // will. `deadline` is by Clock::Real(). Errors, of which the former epoch knows nothing: those of
  // SequenceTable, why a rank of the next epoch failed, DEADLINE_EXCEEDED; or why neither epoch
  // serves.
  absl::StatusOr<Takeover> Run(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);

  // The next epoch's own thread.

  // Waits for a part to copy; none when the switch is done: the engine is the next epoch's.
  absl::StatusOr<std::optional<Step>> NextPart() ABSL_LOCKS_EXCLUDED(mu_);
  // All ranks have copied it.
  void PartDone() ABSL_LOCKS_EXCLUDED(mu_);
  // After the switch: requests find the next epoch; then, that the first of them may run. Returns
  // when the pause began.
  void Taken() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Time Serves(int64_t tokens_rebuilt) ABSL_LOCKS_EXCLUDED(mu_);

  // Any thread. The next epoch has failed: the former one goes on, unless it is too late for that.
  void Fail(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class State { kNew, kCopying, kHeld, kDecided, kSwitched, kTaken, kServing, kEnded };

  Engine& engine() const { return *handover_->estate().engine; }
  void TakeTurn();
  // False when it is too late to go back.
  bool GiveUp(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // The former epoch's own thread.
  absl::StatusOr<Engine::TurnEnd> Advance(SequenceTable& sequences, const Engine::Means& means)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Begin(SequenceTable& sequences) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Engine::TurnEnd> Hold(SequenceTable& sequences, const Engine::Means& means)
      ABSL_LOCKS_EXCLUDED(mu_);
  // After the decision: the next epoch serves, or none does.
  absl::Status Switch(SequenceTable& sequences, const Engine::Means& means)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status MoveRest(SequenceTable& sequences, const Engine::Means& means)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Engine::TurnEnd> RollBack(SequenceTable& sequences, const Engine::Means& means,
                                           const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);
  // Has a part sealed, and hands it over.
  absl::Status StartPart(Step part, const Engine::Means& means) ABSL_LOCKS_EXCLUDED(mu_);
  // False when it failed.
  bool AwaitPart(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Stamp(StepKind kind, const Engine::Means& means);
  uint64_t CopiesOf(const StepMove& move) const;
  // OK when it will switch, which nothing prevents from then on.
  absl::Status Decide() ABSL_LOCKS_EXCLUDED(mu_);
  void End(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;
  const std::shared_ptr<Handover> handover_;

  // The former epoch's own thread.
  bool settled_ = false;  // all that is worth it has been copied before the pause
  uint64_t copied_ = 0;   // blocks

  mutable absl::Mutex mu_;
  State state_ ABSL_GUARDED_BY(mu_) = State::kNew;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);  // before the switch
  absl::Status lost_ ABSL_GUARDED_BY(mu_);     // the next epoch, after the decision: none serves
  absl::Time deadline_ ABSL_GUARDED_BY(mu_);
  std::optional<Step> part_ ABSL_GUARDED_BY(mu_);  // to be copied
  bool copying_ ABSL_GUARDED_BY(mu_) = false;      // from StartPart to PartDone
  absl::Time part_begun_ ABSL_GUARDED_BY(mu_);
  absl::Time held_ ABSL_GUARDED_BY(mu_);
  Takeover result_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_MIGRATION_H_
