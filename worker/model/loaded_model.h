// A model between Load and Capture: its weights are there, its buffers are not.
#ifndef MUSTER_WORKER_MODEL_LOADED_MODEL_H_
#define MUSTER_WORKER_MODEL_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/cache/kv_cache.h"
#include "worker/collective/workspace.h"
#include "worker/collective/workspace_plan.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"
#include "worker/model/model.h"
#include "worker/model/model_config.h"
#include "worker/model/ops.h"
#include "worker/model/rank_shape.h"
#include "worker/model/weights.h"

namespace muster {

class LoadedModel;

// What loading needs. `device` and `ledger` outlive the loaded model; the rest is not kept.
struct LoadRequest {
  const ModelConfig& config;
  const Checkpoint& checkpoint;
  RankShape shape;
  DType dtype = DType::kFloat32;  // float32 or bfloat16
  Device& device;
  Ledger& ledger;
  LoadProgress progress;
  // A model of the same config, type and device, whose weights are shared where they are the same;
  // it may be gone once this one is loaded. Null: none.
  const LoadedModel* previous = nullptr;
};

// What the model of one rank computes with. All outlive the model.
struct ModelParts {
  Ops& ops;
  KvCache& kv;       // of LoadedModel::kv_layout
  Workspace& stage;  // of the STAGE group, be it of one rank
  Workspace* cp;     // of the CP group; null when it has one rank
  StepLimits limits;
};

// One rank's weights. Immutable but for BuildModel.
class LoadedModel {
 public:
  virtual ~LoadedModel() = default;

  virtual KvLayout kv_layout() const = 0;
  // Charged to the ledger it was loaded with, shared or not, while the model lives.
  virtual const HeldWeights& weights() const = 0;
  // What it did not load, since its predecessor had it.
  virtual uint64_t shared_weight_bytes() const = 0;
  // The collectives that Forward will enqueue, for the plan of the workspaces.
  virtual std::vector<CollectiveUse> collectives(const StepLimits& limits) const = 0;
  // Allocates the model's buffers (ledger tag "activations") and prepares the operations: all that
  // must be there before capture. This object outlives the model. RESOURCE_EXHAUSTED,
  // INVALID_ARGUMENT, FAILED_PRECONDITION (a workspace of another kind of group).
  virtual absl::StatusOr<std::unique_ptr<Model>> BuildModel(const ModelParts& parts) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_LOADED_MODEL_H_
