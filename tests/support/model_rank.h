// One rank of a model, set up without an engine: for tests and benchmarks.
#ifndef MUSTER_TESTS_SUPPORT_MODEL_RANK_H_
#define MUSTER_TESTS_SUPPORT_MODEL_RANK_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "base/topology.h"
#include "worker/cache/block_allocator.h"
#include "worker/cache/kv_cache.h"
#include "worker/collective/collective_set.h"
#include "worker/collective/rendezvous.h"
#include "worker/engine/engine_backend.h"
#include "worker/model/loaded_model.h"
#include "worker/model/model_source.h"

namespace muster {

// New tokens of one sequence in a step.
struct TokenSlice {
  int sequence = 0;  // slot
  std::vector<int> tokens;
  int position = 0;  // of the first of them: how many the sequence had
};

// Every rank must make the same calls. It keeps the books of KV blocks as a leader would, alike on
// all ranks.
class ModelRank {
 public:
  struct Options {
    std::string directory;
    std::string dtype = "auto";
    // Where it computes; null: on the CPU, with so many threads.
    std::function<absl::StatusOr<std::unique_ptr<EngineBackend>>()> make_backend;
    ParallelConfig config;
    GlobalRank rank;
    int threads = 1;
    Fusion fusion = Fusion::kFused;
    int64_t kv_blocks = 64;  // of this rank
    StepLimits limits = {
        .max_rows = 512, .max_outputs = 32, .max_sequences = 8, .max_local_blocks = 64};
  };

  // Load, Warmup and KV. The rendezvous is that of epoch 1 and outlives the rank.
  static absl::StatusOr<std::unique_ptr<ModelRank>> Create(const Options& options,
                                                           Rendezvous& rendezvous);

  // Fills the step's buffers and allocates the blocks it needs. The rows that follow those of the
  // slices, up to `rows`, are padding. Rows whose logits are wanted: the last of each slice.
  absl::Status Stage(const std::vector<TokenSlice>& slices, int rows);
  // Runs what was staged. The local logits of the last row of each slice: [slices, vocabulary].
  absl::StatusOr<std::vector<std::vector<float>>> Run();
  // Both, without padding.
  absl::StatusOr<std::vector<std::vector<float>>> Forward(const std::vector<TokenSlice>& slices);
  // Gives the blocks of a sequence back.
  absl::Status FreeSequence(int sequence);

  const ModelSpec& spec() const { return source_->spec; }
  const RankShape& shape() const { return shape_; }
  const Ledger& ledger() const { return ledger_; }
  Device& device() { return backend_->device(); }
  Stream& stream() { return *stream_; }
  Model& model() { return *model_; }

 private:
  explicit ModelRank(const Options& options)
      : options_(options), allocator_(options.config.cp, options.kv_blocks) {}

  absl::Status MakeBackend();
  absl::Status Load();
  absl::Status Warmup(Rendezvous& rendezvous);
  absl::Status Build();
  absl::Status Grow(const TokenSlice& slice);

  const Options options_;
  Ledger ledger_;
  std::unique_ptr<EngineBackend> backend_;
  std::optional<ModelSource> source_;
  RankShape shape_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<CollectiveSet> collectives_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Model> model_;
  KvBlockAllocator allocator_;
  std::vector<std::vector<BlockGrant>> blocks_;  // by sequence slot
  int rows_ = 0;                                 // of the staged step
  int outputs_ = 0;
};

}  // namespace muster

#endif  // MUSTER_TESTS_SUPPORT_MODEL_RANK_H_
