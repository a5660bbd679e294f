#ifndef MUSTER_WORKER_MODEL_REGISTRY_H_
#define MUSTER_WORKER_MODEL_REGISTRY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/architecture.h"
#include "worker/model/loaded_model.h"

namespace muster {

// The architecture of that name, or null.
const Architecture* FindArchitecture(absl::string_view name);

// "LlamaForCausalLM, MistralForCausalLM, ...".
std::string SupportedArchitectures();

// Loads this rank's part of a model of any of them. Errors of Checkpoint::Find and
// Device::Allocate.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_REGISTRY_H_
