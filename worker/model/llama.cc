// Llama (Touvron et al., 2023; Dubey et al., 2024) and what has its shape.
#include "base/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/dense_decoder.h"
#include "worker/model/dense_decoder_config.h"

namespace muster {
namespace {

// attention_bias and mlp_bias give every projection of their block a bias.
absl::Status Read(const JsonObject& json, ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadDenseDecoder(json, {}, config));
  MUSTER_ASSIGN_OR_RETURN(config.qkv_bias, json.Boolean("attention_bias", false));
  config.o_bias = config.qkv_bias;
  MUSTER_ASSIGN_OR_RETURN(config.mlp_bias, json.Boolean("mlp_bias", false));
  return ReadWindows(json, /*window=*/0, /*first=*/0, config);
}

}  // namespace

Architecture Llama() {
  return {.name = "LlamaForCausalLM", .read = Read, .load = LoadDenseDecoder};
}

}  // namespace muster
