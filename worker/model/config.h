// What config.json of a Hugging Face directory says, checked.
#ifndef MUSTER_WORKER_MODEL_CONFIG_H_
#define MUSTER_WORKER_MODEL_CONFIG_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace muster {

// What `architectures` of config.json may name.
inline constexpr const char* kSupportedArchitectures[] = {"LlamaForCausalLM"};

// How positions turn into rotation angles.
struct RopeConfig {
  enum class Type { kDefault, kLlama3 };

  Type type = Type::kDefault;
  double theta = 10000.0;
  // Of kLlama3 (Llama 3.1): wavelengths above original_max_positions / low_freq_factor are
  // stretched by `factor`, those below original_max_positions / high_freq_factor kept, those
  // between blended.
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int original_max_positions = 0;

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

// Every product of two sizes fits an int64_t, and heads * head_dim an int.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  std::string name;          // of the directory
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;  // divides heads
  int head_dim = 0;  // even; heads * head_dim need not be hidden
  int ffn = 0;
  int vocabulary = 0;
  int max_positions = 0;
  double rms_norm_eps = 0;
  RopeConfig rope;
  bool tied_embeddings = false;
  std::optional<DType> dtype;  // of the checkpoint, where config.json says it
  std::vector<int> eos_token_ids;
  std::string json;  // config.json as it is

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Reads DIR/config.json, in the older form (rope_theta, rope_scaling, torch_dtype) or the newer
// (rope_parameters, dtype), and the end tokens of DIR/generation_config.json, if there is one.
// NOT_FOUND: no such directory, no config.json. INVALID_ARGUMENT: names the field, and for an
// architecture, activation or rope type those that are supported. Reason kModelUnusable.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory);

// The same from text. `generation_config` may be empty.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config,
                                             absl::string_view generation_config);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CONFIG_H_
