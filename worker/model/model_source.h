// A model directory as a worker opened it: facts and mapped files, no weights yet.
#ifndef MUSTER_WORKER_MODEL_MODEL_SOURCE_H_
#define MUSTER_WORKER_MODEL_MODEL_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"
#include "kernels/dtype.h"
#include "worker/model/checkpoint.h"
#include "worker/model/config.h"

namespace muster {

// Immutable, and shared by all epochs of a worker.
struct ModelSource {
  ModelConfig config;
  std::unique_ptr<const Checkpoint> checkpoint;
  DType dtype = DType::kFloat32;  // of weights and KV
  ModelSpec spec;

  // Reads config.json and the headers of the weight files; `dtype` as of ChooseDType. Errors of
  // ReadModelConfig, Checkpoint::Open and ChooseDType.
  static absl::StatusOr<ModelSource> Open(const std::string& directory, absl::string_view dtype);
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_SOURCE_H_
