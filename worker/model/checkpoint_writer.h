// Writes small checkpoints: for tests and benchmarks.
#ifndef MUSTER_WORKER_MODEL_CHECKPOINT_WRITER_H_
#define MUSTER_WORKER_MODEL_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"
#include "worker/model/model_config.h"

namespace muster {

struct TensorValues {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::vector<float> values;  // row-major
};

using NamedTensors = std::map<std::string, TensorValues>;

// The bytes of a safetensors file.
std::string SafetensorsBytes(const NamedTensors& tensors);

// Every tensor of a dense decoder, filled from `seed`: uniform, scaled to the width that it reads.
NamedTensors RandomLlama(const ModelConfig& config, DType dtype, uint64_t seed);

// config.json of a Llama without biases, in the older form.
std::string LlamaConfigJson(const ModelConfig& config, DType dtype);

// Writes a file, replacing one that is there.
absl::Status WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CHECKPOINT_WRITER_H_
