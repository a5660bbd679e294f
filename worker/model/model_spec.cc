#include "worker/model/model_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/digest.h"

namespace muster {
namespace {

// Parameters of the projections and tables: those that are held in the model's type.
uint64_t MatrixElements(const ModelConfig& config) {
  const uint64_t hidden = config.hidden;
  const uint64_t attention = uint64_t{2} * (config.heads + config.kv_heads) * config.head_dim;
  const uint64_t layer = hidden * (attention + uint64_t{3} * config.ffn);
  const uint64_t tables = config.tied_embeddings ? 1 : 2;
  return config.layers * layer + tables * config.vocabulary * hidden;
}

// Parameters of norms and biases, which are held in float32.
uint64_t VectorElements(const ModelConfig& config) {
  uint64_t layer = uint64_t{2} * config.hidden;
  if (config.qkv_bias) {
    layer += (uint64_t(config.heads) + uint64_t{2} * config.kv_heads) * config.head_dim;
  }
  if (config.qk_norm) layer += uint64_t{2} * config.head_dim;
  if (config.o_bias) layer += config.hidden;
  if (config.mlp_bias) layer += uint64_t{2} * config.ffn + config.hidden;
  return config.layers * layer + config.hidden;
}

// The window that every layer has.
int CommonWindow(const ModelConfig& config) {
  if (config.windows.empty()) return 0;
  return *std::min_element(config.windows.begin(), config.windows.end());
}

}  // namespace

absl::StatusOr<DType> ChooseDType(absl::string_view option, const ModelConfig& config,
                                  const Checkpoint& checkpoint, bool has_float16) {
  if (option == "auto") {
    const DType dtype = config.dtype.value_or(checkpoint.dtype());
    return dtype == DType::kFloat16 && !has_float16 ? DType::kFloat32 : dtype;
  }
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (option != Name(dtype)) continue;
    if (dtype != DType::kFloat16 || has_float16) return dtype;
    return absl::InvalidArgumentError(
        "dtype 'float16' needs a CUDA device; on the CPU it can be auto, float32, bfloat16");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype '", option, "' is none of auto, float32, bfloat16, float16"));
}

ModelSpec ToSpec(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype) {
  Digest digest;
  digest.Add(absl::string_view(config.json));
  checkpoint.AddTo(digest);
  const uint64_t bytes =
      MatrixElements(config) * SizeOf(dtype) + VectorElements(config) * sizeof(float);
  return ModelSpec{.architecture = config.architecture,
                   .name = config.name,
                   .layers = config.layers,
                   .hidden = config.hidden,
                   .heads = config.heads,
                   .kv_heads = config.kv_heads,
                   .head_dim = config.head_dim,
                   .ffn = config.ffn,
                   .vocabulary = config.vocabulary,
                   .max_positions = config.max_positions,
                   .dtype = Name(dtype),
                   .digest = DigestString(digest.value()),
                   .weight_bytes = bytes,
                   .eos_token_ids = config.eos_token_ids,
                   .sliding_window = CommonWindow(config)};
}

}  // namespace muster
