// Mistral (Jiang et al., 2023): a Llama whose layers may all have a sliding window.
#include "base/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/dense_decoder.h"
#include "worker/model/dense_decoder_config.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

// sliding_window is null in the releases that have none, and 4,096 where it is not mentioned.
absl::Status Read(const JsonObject& json, ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadDenseDecoder(json, {.kv_heads = 8}, config));
  MUSTER_ASSIGN_OR_RETURN(const int window, ReadSlidingWindow(json, 4096));
  MUSTER_RETURN_IF_ERROR(ReadWindows(json, window, /*first=*/0, config));
  for (int layer = 0; layer < config.layers; ++layer) {
    if (config.WindowOf(layer) == window) continue;
    return ModelUnusable(json.place(), ": layer_types[", layer,
                         "] is full_attention; MistralForCausalLM has its sliding_window in every "
                         "layer");
  }
  return absl::OkStatus();
}

}  // namespace

Architecture Mistral() {
  return {.name = "MistralForCausalLM", .read = Read, .load = LoadDenseDecoder};
}

}  // namespace muster
