// Qwen3 (Yang et al., 2025), its dense models: a Llama that normalises each head of q and k.
#include "base/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/dense_decoder.h"
#include "worker/model/dense_decoder_config.h"

namespace muster {
namespace {

// head_dim is a size of its own, 128 unless it is mentioned; attention_bias gives q, k, v and the
// output a bias each.
absl::Status Read(const JsonObject& json, ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadDenseDecoder(json, {.kv_heads = 32, .head_dim = 128}, config));
  config.qk_norm = true;
  MUSTER_ASSIGN_OR_RETURN(config.qkv_bias, json.Boolean("attention_bias", false));
  config.o_bias = config.qkv_bias;
  return ReadSwitchedWindows(json, config);
}

}  // namespace

Architecture Qwen3() {
  return {.name = "Qwen3ForCausalLM", .read = Read, .load = LoadDenseDecoder};
}

}  // namespace muster
