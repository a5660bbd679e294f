// A model as a worker opened it: facts and mapped files, no weights yet.
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

// Where the weights come from.
enum class LoadFormat {
  kSafetensors,  // the directory's files
  kDummy,        // made up from config.json alone (dummy_checkpoint.h)
};

// "auto" (the directory's files), "safetensors" or "dummy". INVALID_ARGUMENT: another.
absl::StatusOr<LoadFormat> ParseLoadFormat(absl::string_view text);

// Immutable, and shared by all epochs of a worker.
struct ModelSource {
  struct Options {
    std::string directory;
    std::string dtype = "auto";  // as of ChooseDType
    LoadFormat load_format = LoadFormat::kSafetensors;
    bool has_float16 = false;  // the device computes in it
  };

  ModelConfig config;
  std::unique_ptr<const Checkpoint> checkpoint;
  DType dtype = DType::kFloat32;  // of weights and KV
  ModelSpec spec;

  // Reads config.json and the headers of the weight files. Errors of ReadModelConfig,
  // Checkpoint::Open and ChooseDType.
  static absl::StatusOr<ModelSource> Open(const Options& options);
  // The directory's files on a device without float16.
  static absl::StatusOr<ModelSource> Open(const std::string& directory, absl::string_view dtype) {
    return Open({.directory = directory, .dtype = std::string(dtype)});
  }
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_SOURCE_H_
