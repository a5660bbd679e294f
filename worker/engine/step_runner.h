// Runs stamped steps: the same on the leader and on every follower.
#ifndef MUSTER_WORKER_ENGINE_STEP_RUNNER_H_
#define MUSTER_WORKER_ENGINE_STEP_RUNNER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/cache/kv_cache.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/collective_tally.h"
#include "worker/device/device.h"
#include "worker/engine/engine_counters.h"
#include "worker/engine/sampler.h"
#include "worker/engine/span_ring.h"
#include "worker/engine/step.h"
#include "worker/model/model.h"

namespace muster {

// One rank's part in the steps of an epoch. Used by one thread at a time.
class StepRunner {
 public:
  struct Options {
    StepLimits limits;
    int cp_rank = 0;
    int cp = 1;
    // Rows of the graphs to capture, largest first; a step whose rows and outputs are both padded
    // to one of them replays it, all others run eagerly.
    std::vector<int> buckets;
    // Runs what computes on the devices of all ranks before the epoch serves: when none of another
    // epoch's steps does.
    std::function<absl::Status(absl::FunctionRef<absl::Status()>)> exclusively =
        [](absl::FunctionRef<absl::Status()> run) { return run(); };
  };
  struct Parts {  // all outlive it
    Device& device;
    Stream& stream;
    Model& model;
    KvCache& kv;
    Sampler& sampler;
    Ledger& ledger;                // tag "graphs"
    const CollectiveTally& tally;  // of the model's and the sampler's collectives
    EngineCounters& counters;      // of what Run does
    const CollectiveBackend& collectives;
    const RankSpans& spans;
  };
  StepRunner(const Options& options, const Parts& parts) : options_(options), parts_(parts) {}
  ~StepRunner() { parts_.ledger.Discharge("graphs", graph_bytes_); }
  StepRunner(const StepRunner&) = delete;
  StepRunner& operator=(const StepRunner&) = delete;

  // Collective. Captures a graph per bucket and replays each once on padding alone; before the KV
  // arena exists. `on_graph(done, total)`. Errors of Device::Capture, Model and Communicator.
  absl::Status Capture(const std::function<void(int done, int total)>& on_graph);

  // Hidden states of the slices of a step, in the order of its rows; [tokens, hidden] each.
  using HiddenStates = absl::Span<const absl::Span<const float>>;

  // Collective: applies the step's changes to the block tables, runs it, and gathers what its
  // outputs ask for. `hidden` is the leader's, where the step takes it. Errors of Model, KvCache
  // and Communicator end the epoch.
  absl::Status Run(const Step& step, HiddenStates hidden = {});

  // Changes the block tables alone, as a kPull does.
  absl::Status ApplyTables(const Step& step);

  // Of the last Run: what `slice` asked for at output `index`. On the leader.
  absl::StatusOr<SliceOutput> Answer(const Step& step, int index, const SequenceSlice& slice) {
    return parts_.sampler.Answer(step, index, slice);
  }
  // Of the last Run: the hidden states that it kept, [rows of the step, hidden].
  const float* hidden_states() const { return parts_.model.buffers().hidden_out; }
  // Of the last Run, from its first enqueue to its completion.
  absl::Duration device_time() const { return device_time_; }
  // Writes the last Run, of `step`, as spans, where somebody reads them. The step began when it was
  // stamped, and followers could read it `relay_time` later; or with the Run.
  void WriteSpans(const Step& step) const { WriteSpans(step, begun_, absl::ZeroDuration()); }
  void WriteSpans(const Step& step, absl::Time stamped, absl::Duration relay_time) const;
  // Rows that the last Run computed, padding included.
  int rows_run() const { return rows_run_; }
  // KV blocks of this rank that sequences held in the last Run.
  int64_t kv_blocks_used() const { return parts_.kv.used_blocks(); }

 private:
  absl::Status ApplyFork(const StepFork& fork);
  absl::Status ApplyBlock(const StepBlock& block);
  // Writes the step's rows and outputs, padded.
  void FillBuffers(const Step& step, int rows, int outputs);
  void FillHidden(int rows, HiddenStates hidden);
  absl::Status RunRows(const Step& step, HiddenStates hidden);
  // A graph, and the collectives that a replay of it runs.
  struct Captured {
    std::unique_ptr<Graph> graph;
    CollectiveTally collectives;
  };
  // Null where the step is to run eagerly.
  const Captured* GraphOf(const Step& step) const;
  void NoteRows(const Step& step);
  void NoteCollectives(const CollectiveTally& tally);

  const Options options_;
  const Parts parts_;
  std::map<int, Captured> graphs_;  // by rows
  uint64_t graph_bytes_ = 0;        // that they hold
  // Of the last Run.
  absl::Time begun_;
  absl::Duration device_time_;
  int rows_run_ = 0;
  // Of the last Run, for spans.
  struct Trace {
    bool on = false;                     // somebody read them when it began
    std::optional<absl::Duration> wait;  // for peers in collectives; none where nobody can tell
    absl::Time sampling_begun = absl::InfiniteFuture();
    uint32_t collectives = 0;
    uint64_t collective_bytes = 0;
  };
  Trace trace_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_STEP_RUNNER_H_
