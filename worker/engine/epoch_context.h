// All that belongs to one epoch on one rank, and its life.
#ifndef MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_
#define MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/topology.h"
#include "worker/collective/collective_set.h"
#include "worker/collective/rendezvous.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_backend.h"
#include "worker/engine/relay.h"
#include "worker/engine/step_runner.h"
#include "worker/model/loaded_model.h"
#include "worker/model/model_source.h"
#include "worker/model/rank_shape.h"

namespace muster {

// Weights, workspaces, graphs, KV and the thread that runs the steps: ASSIGNED when it is made,
// then Load, Warmup, Capture (which ends AGREED) and Activate, in this order and each once, by one
// preparing thread. A phase that fails leaves it FAILED. There is no state outside of it: contexts
// of several epochs live in one process and go in any order. The destructor waits for no other
// rank; it ends the thread and gives everything back.
class EpochContext {
 public:
  struct Options {
    Fusion fusion = Fusion::kFused;
    bool graphs = true;
    uint64_t kv_memory = uint64_t{512} << 20;  // bytes of KV blocks of this rank at most
    StepLimits limits;                         // max_local_blocks is worked out from the model
    std::vector<int> buckets = {32, 16, 8, 4, 2, 1};
    absl::Duration step_timeout = absl::Seconds(10);
    absl::Duration client_lease = absl::Minutes(10);  // of a silent client on its sequences
    const Clock* clock = &Clock::Real();              // of leases
  };
  // What it is made for and with. The references outlive it.
  struct Assignment {
    Topology topology;
    GlobalRank rank;
    const ModelSource& model;
    EngineBackend& backend;
    std::unique_ptr<Rendezvous> rendezvous;  // of this epoch
    // Called on the preparing thread whenever a phase begins or gets on, and on the epoch's own
    // thread (with the phase "serving") after each step. Must not block.
    std::function<void(const Progress&)> on_progress = [](const Progress&) {};
    // Called once, when it becomes FAILED, on the thread that found out, after all waits were told
    // to end. Must not block.
    std::function<void(const absl::Status& reason)> on_failed = [](const absl::Status&) {};
    // Called on the leader's own thread when a client has lost its sequences. Must not block.
    std::function<void(const ClientExpiry&)> on_client_expired = [](const ClientExpiry&) {};
  };
  // What Capture left.
  struct Captured {
    std::vector<int> buckets;  // largest first
    int64_t kv_blocks = 0;     // of this rank
    int block_tokens = 0;
    int64_t block_bytes = 0;       // of this rank
    std::string agreement_digest;  // 16 hexadecimal digits, equal on all ranks
  };

  // INVALID_ARGUMENT (a rank outside the topology; sizes that the model does not divide by).
  static absl::StatusOr<std::unique_ptr<EpochContext>> Create(const Options& options,
                                                              Assignment assignment);
  ~EpochContext();
  EpochContext(const EpochContext&) = delete;
  EpochContext& operator=(const EpochContext&) = delete;

  // Copies this rank's shards of the weights. Errors of LoadModel; reason of an abort.
  absl::Status Load();
  // Builds and seals the collectives, and opens the relay. `timeout` bounds the whole. Errors of
  // CollectiveSet::Warmup and StepRingBackend.
  absl::Status Warmup(absl::Duration timeout);
  // Captures the graphs, sizes the KV arena by the smallest rank, agrees with all ranks. Errors:
  // RESOURCE_EXHAUSTED, FAILED_PRECONDITION (DISAGREEMENT: names field and ranks), those of
  // StepRunner and Rendezvous.
  absl::StatusOr<Captured> Capture(absl::Duration timeout);
  // The leader lets requests in. From AGREED.
  absl::Status Activate();
  // The leader lets none in any more and waits for those in flight. From SERVING or DRAINING.
  absl::Status Drain(absl::Duration timeout);

  // Ends every wait and every step of it, now and later, on this rank and on its peers where they
  // share memory: FAILED. The first reason stays. Any thread; does not block.
  void Abort(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // The leader's engine, from AGREED on until the destruction; null on a follower and before. Any
  // thread.
  Engine* engine() const ABSL_LOCKS_EXCLUDED(mu_);

  const Topology& topology() const { return assignment_.topology; }
  GlobalRank rank() const { return assignment_.rank; }
  const ModelSource& model() const { return assignment_.model; }
  const Options& options() const { return options_; }
  const Ledger& ledger() const { return ledger_; }
  // Any thread.
  EpochReport Report() const ABSL_LOCKS_EXCLUDED(mu_);
  // OK until FAILED.
  absl::Status failure() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  EpochContext(const Options& options, Assignment assignment, const RankShape& shape,
               std::vector<Group> groups);

  bool leads() const { return assignment_.rank == GlobalRank(0); }
  const Group& stage() const { return groups_[0]; }
  Epoch epoch() const { return assignment_.topology.epoch; }
  Rendezvous& rendezvous() const { return *assignment_.rendezvous; }

  // Runs a phase that leads from one state to another.
  absl::Status RunPhase(WorkerState from, WorkerState to, absl::FunctionRef<absl::Status()> phase)
      ABSL_LOCKS_EXCLUDED(mu_);
  void SetProgress(const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_);
  void EnterPhase(absl::string_view phase) { SetProgress({.phase = std::string(phase)}); }

  // Every rank of the stage contributes `value`; one that fails, fails all.
  absl::StatusOr<std::vector<std::string>> Gather(absl::string_view key, absl::string_view value,
                                                  absl::Time deadline);
  // Tells the other ranks, wherever they wait, of a failure that only this one knows of.
  absl::Status FailOthers(const absl::Status& status);

  // Warmup: epoch_warmup.cc.
  std::vector<CollectiveUse> Uses() const;
  absl::Status OpenRelay(absl::Time deadline);
  absl::StatusOr<std::unique_ptr<StepRing>> OpenRing(absl::string_view handle);

  // Capture: epoch_capture.cc.
  absl::Status BuildModel();
  absl::Status CaptureGraphs();
  absl::Status SizeKv(absl::Time deadline);
  absl::Status AttachArena(int64_t blocks);
  absl::StatusOr<int64_t> AffordableBlocks() const;
  absl::StatusOr<std::string> Agree(absl::Time deadline);
  void StartServing();

  // The epoch's own thread.
  void Serve();
  absl::Status Lead();
  absl::Status Follow();
  void NoteStep(StepNumber step, int64_t kv_used);

  // Ends the thread and gives back all but the engine.
  void GiveBack() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;
  const Assignment assignment_;
  const RankShape shape_;
  const std::vector<Group> groups_;  // of this rank, STAGE first
  const Logger log_;

  // Built by the preparing thread, then used by the epoch's own; in this order.
  Ledger ledger_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<CollectiveSet> collectives_;  // made at construction, empty until Warmup
  std::unique_ptr<StepRing> ring_;              // null where this is the only rank
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<RelaySender> sender_;  // of the leader, as the engine
  std::unique_ptr<Engine> engine_;
  std::thread thread_;

  std::atomic<uint64_t> step_{0};     // last that ran
  std::atomic<uint64_t> tokens_{0};   // rows of all steps
  std::atomic<int64_t> kv_used_{0};   // blocks of this rank
  std::atomic<int64_t> kv_total_{0};  // blocks of this rank

  // Guards the life below, and against Abort the setting of ring_ and engine_.
  mutable absl::Mutex mu_;
  WorkerState state_ ABSL_GUARDED_BY(mu_) = WorkerState::kAssigned;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  Progress progress_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_
