// Workers of a test: real epochs of a golden model on the CPU, that meet within one process.
#ifndef MUSTER_WORKER_ENGINE_WORKER_EPOCHS_HARNESS_H_
#define MUSTER_WORKER_ENGINE_WORKER_EPOCHS_HARNESS_H_

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "tests/support/local_rendezvous.h"
#include "worker/engine/cpu_engine_backend.h"
#include "worker/engine/worker_epochs.h"
#include "worker/model/golden.h"

namespace muster::testing {

inline constexpr Term kTestTerm{3};
inline constexpr ReplicaIndex kTestReplica{0};

// A call of term kTestTerm on replica 0.
EpochCall CallOf(Epoch epoch, const std::string& request_id);
// Workers w0, w1, ... of incarnations 100, 101, ... at the ranks of replica 0.
Topology TopologyOf(Epoch epoch, const ParallelConfig& config);

// A call that was made, and what became of it.
class PendingCall {
 public:
  EpochWatcher Watcher();

  // Waits for it.
  absl::StatusOr<EpochOutcome> Result() { return result_.get(); }
  // Waits until the phase has begun.
  void AwaitPhase(const std::string& phase) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> phases() const ABSL_LOCKS_EXCLUDED(mu_);  // as they began

 private:
  std::promise<absl::StatusOr<EpochOutcome>> promise_;
  std::shared_future<absl::StatusOr<EpochOutcome>> result_ = promise_.get_future().share();

  mutable absl::Mutex mu_;
  std::vector<std::string> phases_ ABSL_GUARDED_BY(mu_);
};

// Worker w<rank>, which has that rank in every topology.
class TestWorker {
 public:
  using Wrap = std::function<std::unique_ptr<Rendezvous>(std::unique_ptr<Rendezvous>)>;

  // `board`, `model` and `clock` outlive it. `wrap` puts faults around the rendezvous of its
  // epochs; `clock` is that of their clients' leases; `adjust` sees the options of its epochs.
  TestWorker(
      int rank, LocalRendezvousBoard& board, const ModelSource& model,
      const Wrap& wrap = [](std::unique_ptr<Rendezvous> it) { return it; },
      const Clock& clock = Clock::Real(),
      const std::function<void(EpochContext::Options&)>& adjust = [](EpochContext::Options&) {});

  WorkerEpochs& epochs() { return *epochs_; }

  absl::Status Assign(Epoch epoch, const ParallelConfig& config,
                      const std::optional<Topology>& predecessor = std::nullopt);
  std::shared_ptr<PendingCall> Start(EpochCommand command, Epoch epoch,
                                     const std::string& request_id = "",
                                     const EpochContext::TakeoverOrder& takeover = {});
  // Start, with a request id that is the command's name, and wait.
  absl::Status Run(EpochCommand command, Epoch epoch);
  // Assign and all that leads to `state`, alone.
  absl::Status Reach(WorkerState state, Epoch epoch);

  // Calls `act` once, when a phase begins in one of its epochs, on whichever thread enters it.
  void AtPhase(const std::string& phase, std::function<void()> act) ABSL_LOCKS_EXCLUDED(mu_);

  // State of an epoch that it holds.
  WorkerState StateOf(Epoch epoch);
  // "activated 1", "ended 1", "expired 1 'c'", ... as they were told.
  std::vector<std::string> events() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Note(absl::string_view what, Epoch epoch, absl::string_view whom = "")
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnProgress(const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_);

  const int rank_;
  mutable absl::Mutex mu_;
  std::vector<std::string> events_ ABSL_GUARDED_BY(mu_);
  std::string phase_ ABSL_GUARDED_BY(mu_);
  std::function<void()> at_phase_ ABSL_GUARDED_BY(mu_);

  CpuEngineBackend backend_;
  std::unique_ptr<WorkerEpochs> epochs_;
};

// Runs `command` on all at once, as a coordinator does; the first error.
absl::Status RunOnAll(const std::vector<TestWorker*>& workers, EpochCommand command, Epoch epoch);
// Assigns and brings to SERVING.
absl::Status Serve(const std::vector<TestWorker*>& workers, Epoch epoch,
                   const ParallelConfig& config);

// Workers of one replica that changes shape, as a coordinator would have it.
class TestReplica {
 public:
  // `model` outlives it.
  TestReplica(
      int workers, const ModelSource& model,
      const std::function<void(int rank, EpochContext::Options&)>& adjust =
          [](int, EpochContext::Options&) {});

  // The first epoch serves.
  absl::Status Serve(const ParallelConfig& config);
  // Another epoch takes over, and the one before is released.
  absl::StatusOr<Takeover> Resize(const ParallelConfig& config,
                                  const std::vector<SequenceName>& drop = {});

  // The parts of Resize. Assign, Load, Warmup and Capture of the next epoch; one that fails is
  // given back.
  absl::Status Prepare(const ParallelConfig& config);
  // The leader's Activate; one that fails is given back.
  absl::StatusOr<Takeover> TakeOver(const std::vector<SequenceName>& drop = {});
  std::shared_ptr<PendingCall> StartTakeOver(const std::vector<SequenceName>& drop = {});
  absl::Status Release(Epoch epoch, const absl::Status& why = absl::OkStatus());

  TestWorker& worker(int rank) { return *workers_[static_cast<size_t>(rank)]; }
  // The leader's, which stays through all epochs.
  Engine& engine() { return *engine_; }
  Epoch serving() const { return serving_; }
  Epoch next() const { return next_; }

 private:
  // The first ranks of them.
  std::vector<TestWorker*> RanksOf(const ParallelConfig& config) const;

  LocalRendezvousBoard board_;
  std::vector<std::unique_ptr<TestWorker>> workers_;
  std::shared_ptr<Engine> engine_;
  Epoch serving_, next_;
  ParallelConfig config_, next_config_;
  std::string digest_;  // that the next epoch's ranks agreed on
};

// Starts a step of one sequence.
std::future<absl::StatusOr<ForwardResult>> StartForward(Engine& engine, const std::string& sequence,
                                                        const std::vector<int>& tokens,
                                                        int position);
// The first `count` greedy tokens after the golden prompt.
absl::StatusOr<std::vector<int>> Generate(Engine& engine, const Golden& golden, int count);

}  // namespace muster::testing

#endif  // MUSTER_WORKER_ENGINE_WORKER_EPOCHS_HARNESS_H_
