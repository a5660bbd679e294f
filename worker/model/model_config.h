// What a model is: the words in which architectures describe what config.json says.
#ifndef MUSTER_WORKER_MODEL_MODEL_CONFIG_H_
#define MUSTER_WORKER_MODEL_MODEL_CONFIG_H_

#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace muster {

// How positions turn into rotation angles. rope_table.h says what the kinds compute.
struct RopeConfig {
  enum class Type { kDefault, kLinear, kDynamic, kLlama3, kYarn };

  Type type = Type::kDefault;
  double theta = 10000.0;
  double factor = 1.0;             // by which the context is stretched
  int original_max_positions = 0;  // of all kinds but kDefault and kLinear: the context before that
  // Of kLlama3.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // Of kYarn.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  double attention_factor = 1.0;  // multiplies cos and sin

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

// Every product of two sizes fits an int64_t, and heads * head_dim an int.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  std::string name;          // of the directory
  int layers = 0;            // 0: the norm and the output follow the embedding
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
  bool qkv_bias = false;       // on q, k and v
  bool o_bias = false;         // on the attention's output
  bool mlp_bias = false;       // on gate, up and down
  bool qk_norm = false;        // RMS norm of each head of q and k, before the rotation
  std::vector<int> windows;    // [layers]: positions that a row of the layer attends to, its own
                               // included, 0 where all; empty where no layer has a window
  std::optional<DType> dtype;  // of the checkpoint, where config.json says it
  std::vector<int> eos_token_ids;
  std::string json;  // config.json as it is

  int WindowOf(int layer) const { return windows.empty() ? 0 : windows[layer]; }

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_CONFIG_H_
