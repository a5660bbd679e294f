// Qwen2 and Qwen2.5 (Yang et al., 2024): a Llama with biases on q, k and v.
#include "base/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/dense_decoder.h"
#include "worker/model/dense_decoder_config.h"

namespace muster {
namespace {

// No field says that there are biases: there always are.
absl::Status Read(const JsonObject& json, ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadDenseDecoder(json, {.kv_heads = 32}, config));
  config.qkv_bias = true;
  return ReadSwitchedWindows(json, config);
}

}  // namespace

Architecture Qwen2() {
  return {.name = "Qwen2ForCausalLM", .read = Read, .load = LoadDenseDecoder};
}

}  // namespace muster
