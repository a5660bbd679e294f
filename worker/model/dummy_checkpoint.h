#ifndef MUSTER_WORKER_MODEL_DUMMY_CHECKPOINT_H_
#define MUSTER_WORKER_MODEL_DUMMY_CHECKPOINT_H_

#include <vector>

#include "worker/model/checkpoint.h"
#include "worker/model/model_config.h"

namespace muster {

// A model that has a config.json and nothing else: every tensor is there in the shape that it is
// asked for, its elements made from its name and their places (kernels/dummy_weights.h). Norms are
// 1; all others are about normal, of mean 0 and deviation 0.02.
class DummyCheckpoint final : public Checkpoint {
 public:
  explicit DummyCheckpoint(const ModelConfig& config);

  // NOT_FOUND: lm_head of a model that uses its embeddings again.
  absl::StatusOr<TensorView> Find(absl::string_view tensor,
                                  const std::vector<int64_t>& shape) const override;
  // As config.json says it; else float32.
  DType dtype() const override { return dtype_; }
  void AddTo(Digest& digest) const override;

 private:
  const DType dtype_;
  const bool tied_embeddings_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_DUMMY_CHECKPOINT_H_
