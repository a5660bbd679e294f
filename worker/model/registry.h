#ifndef MUSTER_WORKER_MODEL_REGISTRY_H_
#define MUSTER_WORKER_MODEL_REGISTRY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"

namespace muster {

// Loads this rank's part of a model of any architecture in kSupportedArchitectures. Errors of
// Checkpoint::Find and Device::Allocate.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_REGISTRY_H_
