#include "worker/model/dense_decoder_config.h"

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/config_limits.h"
#include "worker/model/model_error.h"
#include "worker/model/rope_config.h"

namespace muster {
namespace {

absl::Status ReadHeads(const JsonObject& json, const DenseDecoderDefaults& defaults,
                       ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "num_attention_heads", {1, kMaxHeads}, config.heads));
  int kv_heads = config.heads;
  if (!json.Mentions("num_key_value_heads")) kv_heads = defaults.kv_heads.value_or(kv_heads);
  MUSTER_RETURN_IF_ERROR(
      ReadSize(json, "num_key_value_heads", {1, kMaxHeads}, config.kv_heads, kv_heads));
  if (config.heads % config.kv_heads != 0) {
    return ModelUnusable(json.place(), ": num_key_value_heads ", config.kv_heads,
                         " does not divide num_attention_heads ", config.heads);
  }
  return absl::OkStatus();
}

absl::Status ReadHeadDim(const JsonObject& json, const DenseDecoderDefaults& defaults,
                         ModelConfig& config) {
  std::optional<int> head_dim;
  if (!json.Mentions("head_dim")) head_dim = defaults.head_dim;
  if (!json.Has("head_dim") && !head_dim.has_value() && config.hidden % config.heads != 0) {
    return ModelUnusable(json.place(), ": there is no head_dim, and num_attention_heads ",
                         config.heads, " does not divide hidden_size ", config.hidden);
  }
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "head_dim", {1, kMaxHeadWidth}, config.head_dim,
                                  head_dim.value_or(config.hidden / config.heads)));
  if (config.head_dim > kMaxHeadWidth || config.head_dim % 2 != 0) {
    return ModelUnusable(json.place(), ": head_dim must be even and at most ", kMaxHeadWidth,
                         ", is ", config.head_dim);
  }
  return absl::OkStatus();
}

absl::Status ReadActivation(const JsonObject& json) {
  MUSTER_ASSIGN_OR_RETURN(const std::string activation, json.String("hidden_act", "silu"));
  if (activation == "silu") return absl::OkStatus();
  return ModelUnusable(json.place(), ": hidden_act '", activation,
                       "' is not supported; supported is silu");
}

}  // namespace

absl::Status ReadDenseDecoder(const JsonObject& json, const DenseDecoderDefaults& defaults,
                              ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadActivation(json));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "num_hidden_layers", {0, kMaxLayers}, config.layers));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "hidden_size", {1, kMaxWidth}, config.hidden));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "intermediate_size", {1, kMaxWidth}, config.ffn));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "vocab_size", {1, kMaxVocabulary}, config.vocabulary));
  MUSTER_RETURN_IF_ERROR(
      ReadSize(json, "max_position_embeddings", {1, kMaxPositions}, config.max_positions));
  MUSTER_RETURN_IF_ERROR(ReadHeads(json, defaults, config));
  MUSTER_RETURN_IF_ERROR(ReadHeadDim(json, defaults, config));
  MUSTER_RETURN_IF_ERROR(ReadRope(json, config));
  MUSTER_ASSIGN_OR_RETURN(config.rms_norm_eps, json.Number("rms_norm_eps", 1e-30, 1, 1e-6));
  MUSTER_ASSIGN_OR_RETURN(config.tied_embeddings, json.Boolean("tie_word_embeddings", false));
  return absl::OkStatus();
}

absl::StatusOr<int> ReadSlidingWindow(const JsonObject& json, int by_default) {
  int window = 0;
  if (!json.Mentions("sliding_window")) return by_default;
  if (!json.Has("sliding_window")) return window;
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "sliding_window", {1, kMaxPositions}, window));
  return window;
}

absl::Status ReadWindows(const JsonObject& json, int window, int first, ModelConfig& config) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> types, json.Strings("layer_types"));
  if (json.Has("layer_types") && static_cast<int>(types.size()) != config.layers) {
    return ModelUnusable(json.place(), ": layer_types has ", types.size(),
                         " entries, num_hidden_layers is ", config.layers);
  }
  std::vector<int> windows(config.layers, 0);
  for (int layer = 0; layer < config.layers; ++layer) {
    const bool sliding =
        types.empty() ? window > 0 && layer >= first : types[layer] == "sliding_attention";
    if (!types.empty() && types[layer] != (sliding ? "sliding_attention" : "full_attention")) {
      return ModelUnusable(json.place(), ": layer_types[", layer, "] '", types[layer],
                           "' is not supported; supported are full_attention, sliding_attention");
    }
    if (sliding && window == 0) {
      return ModelUnusable(json.place(), ": layer_types[", layer,
                           "] is sliding_attention, and the model has no sliding window");
    }
    if (sliding) windows[layer] = window;
  }
  if (absl::c_any_of(windows, [](int size) { return size > 0; })) config.windows = windows;
  return absl::OkStatus();
}

absl::Status ReadSwitchedWindows(const JsonObject& json, ModelConfig& config) {
  MUSTER_ASSIGN_OR_RETURN(const bool used, json.Boolean("use_sliding_window", false));
  MUSTER_ASSIGN_OR_RETURN(const int window, ReadSlidingWindow(json, 4096));
  int first = 0;
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "max_window_layers", {0, kMaxLayers}, first, 28));
  return ReadWindows(json, used ? window : 0, first, config);
}

}  // namespace muster
