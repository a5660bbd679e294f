// From vocabulary shards of logits to tokens: gathered by all ranks, answered by one.
#ifndef MUSTER_WORKER_ENGINE_SAMPLER_H_
#define MUSTER_WORKER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/sampling.h"
#include "kernels/shard_top_k.h"
#include "worker/collective/communicator.h"
#include "worker/collective/workspace_plan.h"
#include "worker/device/device.h"
#include "worker/engine/batch.h"
#include "worker/engine/step.h"
#include "worker/model/ops.h"

namespace muster {

// One rank's part in sampling. Used by the device thread, on logits in the device's memory:
// candidates and draws are found there, and only they come to the host; whole logits where the step
// says so, or where the candidates are too few for a filter. What is gathered follows from the step
// and from what all ranks got by gathering before, so all ranks gather the same.
class Sampler {
 public:
  struct Options {
    int max_outputs = 0;
    int vocabulary = 0;
  };

  // For the plan of the workspaces.
  static CollectiveUse GatherUse(const Options& options, int stage_size);

  struct Parts {          // all outlive it
    Communicator& stage;  // of the STAGE group
    Ops& ops;
    Device& device;
    Ledger& ledger;  // tag "sampling"
  };
  static absl::StatusOr<std::unique_ptr<Sampler>> Create(const Options& options,
                                                         const Parts& parts);

  // Collective. What was enqueued before leaves `logits` [outputs of the step, local vocabulary].
  // Returns when all that was enqueued has run. Errors as of Communicator.
  absl::Status Gather(Stream& stream, const Step& step, const float* logits);

  // On group rank 0, after Gather: what `slice` asked for at output `index` of the step. INTERNAL
  // (CANNOT_SAMPLE) when a logit is not a number, or none can be chosen.
  absl::StatusOr<SliceOutput> Answer(const Step& step, int index, const SequenceSlice& slice);

 private:
  // What one rank says of one output; its candidates follow. All at multiples of 8 bytes.
  struct Summary {
    LogitSummary logits;
    ShardDraw draw;
    int64_t candidates = 0;
  };
  // What all ranks say of one output.
  struct Merged {
    LogitSummary logits;
    ShardDraw draw = kNoDraw;
    std::vector<Candidate> candidates;
  };

  Sampler(const Options& options, const Parts& parts);

  static size_t BytesOf(const StepOutput& output) {
    if (output.kind == OutputKind::kWhole) return 0;
    return sizeof(Summary) + static_cast<size_t>(output.candidates) * sizeof(Candidate);
  }
  absl::Status GatherCandidates(Stream& stream, const Step& step, const float* logits);
  absl::Status GatherWhole(Stream& stream, const float* logits);
  // What finds the candidates of output `index`, and where it leaves them on the device.
  ShardTopKParams TopKOf(const Step& step, size_t index, const float* logits, std::byte* to) const;
  // Whether all logits of output `index` are needed, by what is in received_.
  bool NeedsWhole(const Step& step, int index) const;
  // Over the whole vocabulary of output `index`, from what is in received_.
  Merged Merge(const Step& step, int index) const;
  // The same of all logits, without a draw.
  Merged Rank(const float* logits, int64_t candidates) const;
  absl::StatusOr<Candidate> Draw(const Step& step, int index, const SequenceSlice& slice,
                                 const Merged& merged);
  // Of the latest step: those of output `index`; null where they were not gathered.
  const float* WholeLogits(int index) const;

  // Constant after construction.
  const Options options_;
  Communicator& stage_;
  Ops& ops_;
  Device& device_;
  const int size_;
  const int shard_begin_;
  const int shard_size_;
  const int longest_shard_;

  // Device thread only.
  Buffer send_;      // of this rank, on the device
  Buffer gathered_;  // of all ranks, on the device
  Buffer received_;  // the candidates of all ranks on the host
  Buffer landed_;    // all logits of one output on the host
  std::vector<ShardTopKParams> shards_;
  size_t candidate_bytes_ = 0;      // of one rank, in the latest step
  std::vector<int> whole_outputs_;  // of the latest step, in its order
  std::vector<float> whole_;        // rank 0: [whole outputs, vocabulary]
  std::vector<Candidate> scratch_;  // rank 0: [vocabulary]
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SAMPLER_H_
