#include "worker/model/model_spec.h"

#include "absl/strings/str_cat.h"
#include "base/digest.h"

namespace muster {
namespace {

// Parameters of a Llama without those of its norms, whose type is always float32.
uint64_t MatrixElements(const ModelConfig& config) {
  const uint64_t hidden = config.hidden;
  const uint64_t attention = uint64_t{2} * (config.heads + config.kv_heads) * config.head_dim;
  const uint64_t layer = hidden * (attention + uint64_t{3} * config.ffn);
  const uint64_t tables = config.tied_embeddings ? 1 : 2;
  return config.layers * layer + tables * config.vocabulary * hidden;
}

}  // namespace

absl::StatusOr<DType> ChooseDType(absl::string_view option, const ModelConfig& config,
                                  const Checkpoint& checkpoint) {
  if (option == Name(DType::kFloat32)) return DType::kFloat32;
  if (option == Name(DType::kBFloat16)) return DType::kBFloat16;
  if (option != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype '", option, "' is none of auto, float32, bfloat16"));
  }
  const DType dtype = config.dtype.value_or(checkpoint.dtype());
  return dtype == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
}

ModelSpec ToSpec(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype) {
  Digest digest;
  digest.Add(absl::string_view(config.json));
  checkpoint.AddTo(digest);
  const uint64_t norms = (uint64_t{2} * config.layers + 1) * config.hidden;
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
                   .weight_bytes = MatrixElements(config) * SizeOf(dtype) + norms * sizeof(float),
                   .eos_token_ids = config.eos_token_ids};
}

}  // namespace muster
