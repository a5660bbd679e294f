#ifndef MUSTER_WORKER_MODEL_ARCHITECTURE_H_
#define MUSTER_WORKER_MODEL_ARCHITECTURE_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/json_object.h"
#include "worker/model/loaded_model.h"
#include "worker/model/model_config.h"

namespace muster {

// One architecture: defined in a file of its own, and listed in registry.cc. docs/models.md shows
// how one is added.
struct Architecture {
  const char* name;  // as `architectures` of config.json has it
  // Fills in what the layers of the model are. A field that it does not ask `json` for is unknown.
  absl::Status (*read)(const JsonObject& json, ModelConfig& config);
  // Copies this rank's shards. Errors as of WeightLoader::Load.
  absl::StatusOr<std::unique_ptr<LoadedModel>> (*load)(const LoadRequest& request);
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_ARCHITECTURE_H_
