// All that belongs to one epoch on one rank, and its life.
#ifndef MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_
#define MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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
#include "absl/types/span.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/takeover.h"
#include "base/topology.h"
#include "worker/collective/collective_set.h"
#include "worker/collective/rendezvous.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_backend.h"
#include "worker/engine/engine_counters.h"
#include "worker/engine/handover.h"
#include "worker/engine/migration.h"
#include "worker/engine/relay.h"
#include "worker/engine/span_ring.h"
#include "worker/engine/step_runner.h"
#include "worker/model/loaded_model.h"
#include "worker/model/model_source.h"
#include "worker/model/rank_shape.h"

namespace muster {

// Weights, workspaces, graphs, KV and the thread that runs the steps: ASSIGNED when it is made,
// then Load, Warmup, Capture (which ends AGREED) and Activate, in this order and each once, by one
// preparing thread. A phase that fails leaves it FAILED. There is no state outside of it: contexts
// of several epochs live in one process and go in any order. The destructor ends the thread and
// gives everything back; it waits for no other rank, but where the epoch was taken over from for
// those that have yet to read so, within the step timeout.
//
// It may follow an epoch that serves meanwhile. Then it shares with it what does not change,
// computes on the devices only between its steps, and TakeOver takes the place of Activate: the
// former epoch's leader brings its sequences, KV blocks and requests over, and all ranks serve the
// next one, or nothing has happened. It is DRAINING when it has been taken over from.
class EpochContext {
 public:
  struct Options {
    Fusion fusion = Fusion::kFused;
    bool graphs = true;
    uint64_t kv_memory = uint64_t{512} << 20;  // bytes of KV blocks of this rank at most
    int spare_percent = 10;  // of what is free when KV is sized, for other users of the memory
    StepLimits limits;       // max_local_blocks is worked out from the model
    std::vector<int> buckets = {32, 16, 8, 4, 2, 1};
    absl::Duration step_timeout = absl::Seconds(10);
    uint64_t reserve_bytes = 0;  // of weights that an epoch which follows it loads beside it
    absl::Duration client_lease = absl::Minutes(10);  // of a silent client on its sequences
    const Clock* clock = &Clock::Real();              // of leases
    // What all epochs of the worker add to; not null.
    std::shared_ptr<EngineCounters> counters = std::make_shared<EngineCounters>();
    // Where all of them write what they did when; not null.
    std::shared_ptr<SpanRing> spans = std::make_shared<SpanRing>();
    bool falsify_seals = false;  // of tests: blocks seem to have changed on their way
  };
  // The epoch to take over from.
  struct Predecessor {
    Topology topology;
    std::shared_ptr<Handover> handover;  // null where this worker has no rank of it
  };
  // What it is made for and with. The references outlive it.
  struct Assignment {
    Topology topology;
    GlobalRank rank;
    std::optional<Predecessor> predecessor;
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
    // Called once on the epoch's own thread, in a state that says so already: it has taken over
    // from its predecessor; and, that it was taken over from. Must not block.
    std::function<void()> on_taken_over = [] {};
    std::function<void()> on_passed_on = [] {};
  };
  // What Capture left.
  struct Captured {
    std::vector<int> buckets;  // largest first
    int64_t kv_blocks = 0;     // of this rank
    int block_tokens = 0;
    int64_t block_bytes = 0;       // of this rank
    std::string agreement_digest;  // 16 hexadecimal digits, equal on all ranks
    double copy_rate = 0;          // bytes per second of a plain copy; on the leader
  };
  // On what terms to take over.
  struct TakeoverOrder {
    Epoch from;
    std::string agreement_digest;    // of this epoch, as the coordinator knows it
    std::vector<SequenceName> drop;  // what may be lost where it cannot go over; "*" "*": all
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
  // The leader lets requests in. From AGREED, where there is no predecessor.
  absl::Status Activate();
  // On the leader, which is that of the predecessor, in place of Activate; the other ranks follow.
  // OK: this epoch serves. Otherwise the former one does, and this one is FAILED:
  // FAILED_PRECONDITION (WRONG_STATE; DISAGREEMENT: another predecessor or digest), errors of
  // Migration::Run.
  absl::StatusOr<Takeover> TakeOver(const TakeoverOrder& order, absl::Duration timeout);
  // On the preparing thread, after on_taken_over: unmaps what it copied from, which takes too long
  // for the thread that serves.
  void DropSources();
  // For the epoch that is to follow this one here. FAILED_PRECONDITION unless it serves and no
  // other is being prepared.
  absl::StatusOr<std::shared_ptr<Handover>> BeginHandover() ABSL_LOCKS_EXCLUDED(mu_);
  // The leader lets none in any more and waits for those in flight. From SERVING or DRAINING.
  absl::Status Drain(absl::Duration timeout);

  // Ends every wait and every step of it, now and later, on this rank and on its peers where they
  // share memory: FAILED. The first reason stays. Any thread; does not block.
  void Abort(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // The leader's engine, from AGREED on, or from when it has taken over, until it is taken over
  // from; null otherwise and on a follower. Any thread.
  std::shared_ptr<Engine> engine() const ABSL_LOCKS_EXCLUDED(mu_);

  const Topology& topology() const { return assignment_.topology; }
  GlobalRank rank() const { return assignment_.rank; }
  const ModelSource& model() const { return assignment_.model; }
  const Options& options() const { return options_; }
  const Ledger& ledger() const { return ledger_; }
  // From Warmup on, on the preparing thread.
  std::vector<FusionReport> fusion() const { return collectives_->fusion(); }
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
  const std::string& WorkerAt(GlobalRank rank) const {
    return topology().ranks[static_cast<size_t>(rank.value())].worker_id;
  }

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

  // Load and Warmup: epoch_warmup.cc.
  absl::Status LoadWeights(const LoadedModel* previous);
  std::vector<CollectiveUse> Uses() const;
  absl::Status OpenRelay(absl::Time deadline);
  absl::StatusOr<std::unique_ptr<StepRing>> OpenRing(absl::string_view handle);

  // Capture: epoch_capture.cc.
  absl::Status BuildModel();
  absl::Status CaptureGraphs();
  absl::Status SizeKv(absl::Time deadline);
  absl::Status CheckRoom(const std::vector<int64_t>& affordable, int64_t wanted) const;
  absl::Status AttachArena(int64_t blocks);
  absl::StatusOr<int64_t> AffordableBlocks() const;
  uint64_t ReserveBytes() const;
  absl::StatusOr<std::string> Agree(absl::Time deadline);
  void MakeEngine() ABSL_LOCKS_EXCLUDED(mu_);

  // Taking over: epoch_takeover.cc.
  bool follows() const { return assignment_.predecessor.has_value(); }
  // Whether blocks of KV go over; whether the worker at `rank` has that rank in both epochs, its
  // blocks where they are; and this one.
  bool KeepsKv() const;
  bool KeepsPlace(GlobalRank rank) const;
  bool InheritsArena() const { return KeepsKv() && KeepsPlace(rank()); }
  std::shared_ptr<Handover> former() const ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Handover> next() const ABSL_LOCKS_EXCLUDED(mu_);
  // This thread, which prepares, is not to slow down what serves.
  void StandBack() const;
  // Runs what computes on the devices together with the other ranks.
  absl::Status Exclusively(absl::FunctionRef<absl::Status()> work);
  // Tells the ranks of their arenas, and opens those of the former epoch.
  absl::Status ShareArenas(absl::Time deadline);
  absl::Status OpenSources(absl::Span<const std::string> handles);
  absl::Status CheckOrder(const TakeoverOrder& order) const;
  NextDeal Deal() const;
  // On the leader: has all ranks copy what there is, until they serve.
  absl::Status TakeTheLead(Engine::Means& means) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status CopyParts(Migration& migration);
  // Until all are through with what was sent.
  absl::Status AwaitFollowers();
  absl::Status Pull(const Step& step);
  // `migration` is the leader's, null on a follower.
  absl::Status BeginReign(Migration* migration) ABSL_LOCKS_EXCLUDED(mu_);
  // From here on nothing that befalls this epoch matters; the reason when it has failed already.
  absl::Status PassOn() ABSL_LOCKS_EXCLUDED(mu_);
  void EndReign() ABSL_LOCKS_EXCLUDED(mu_);
  void LeaveFormer() ABSL_LOCKS_EXCLUDED(mu_);

  // The epoch's own thread.
  void Start() ABSL_LOCKS_EXCLUDED(mu_);
  bool AwaitStart() ABSL_LOCKS_EXCLUDED(mu_);
  void Serve();
  absl::Status Lead();
  absl::Status Follow();
  // Does what a stamp says; whether this was the last.
  absl::StatusOr<bool> Obey(const Step& step);
  // What began with the kHold that was obeyed last, and has ended.
  void NotePause();
  void NoteStep(StepNumber step, int64_t kv_used);

  // Ends the thread and gives everything back.
  void GiveBack() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;
  Assignment assignment_;  // its handover has become former_
  const RankShape shape_;
  const std::vector<Group> groups_;  // of this rank, STAGE first
  const Logger log_;
  const RankSpans spans_;

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
  std::unique_ptr<RelaySender> sender_;  // of the leader
  Captured captured_;
  absl::Time deadline_;  // of Warmup or Capture
  int slots_ = 0;        // that it computed in, between steps of the former epoch
  std::vector<std::string> arena_handles_;  // by rank
  std::shared_ptr<BlockMover> mover_;       // until it has taken over; then the preparing thread's
  LedgerCharge reserve_;
  bool reigned_ = false;  // has taken over; the own thread's
  absl::Time held_ = absl::InfiniteFuture();  // since a kHold; the own thread's, on a follower
  std::thread thread_;    // from construction on

  std::atomic<uint64_t> step_{0};     // last that ran
  std::atomic<uint64_t> tokens_{0};   // rows of all steps
  std::atomic<int64_t> kv_used_{0};   // blocks of this rank
  std::atomic<int64_t> kv_total_{0};  // blocks of this rank

  // Guards the life below, and against Abort the setting of ring_.
  mutable absl::Mutex mu_;
  WorkerState state_ ABSL_GUARDED_BY(mu_) = WorkerState::kAssigned;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  Progress progress_ ABSL_GUARDED_BY(mu_);
  bool started_ ABSL_GUARDED_BY(mu_) = false;    // the epoch's own thread
  bool passed_on_ ABSL_GUARDED_BY(mu_) = false;  // its reign; waits for nothing any more
  std::shared_ptr<Engine> engine_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<Handover> former_ ABSL_GUARDED_BY(mu_);  // from the predecessor; until it serves
  std::shared_ptr<Handover> next_ ABSL_GUARDED_BY(mu_);    // to whichever follows
  std::shared_ptr<Migration> migration_ ABSL_GUARDED_BY(mu_);  // on the leader, until it serves
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_EPOCH_CONTEXT_H_
