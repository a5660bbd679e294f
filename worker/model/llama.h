// Llama (Touvron et al., 2023; Dubey et al., 2024) and what has its shape.
#ifndef MUSTER_WORKER_MODEL_LLAMA_H_
#define MUSTER_WORKER_MODEL_LLAMA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"

namespace muster {

// Copies this rank's shards. Errors as of WeightLoader::Load.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadLlama(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_LLAMA_H_
