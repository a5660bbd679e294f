// How config.json describes a dense decoder: what the readers of its architectures share.
#ifndef MUSTER_WORKER_MODEL_DENSE_DECODER_CONFIG_H_
#define MUSTER_WORKER_MODEL_DENSE_DECODER_CONFIG_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/json_object.h"
#include "worker/model/model_config.h"

namespace muster {

// What holds where config.json does not mention the field.
struct DenseDecoderDefaults {
  std::optional<int> kv_heads;  // none: as many as heads
  std::optional<int> head_dim;  // none: hidden / heads
};

// Sizes, norms, rope, activation (silu alone) and tied embeddings. No biases, no norms of heads, no
// windows: what has them reads them. INVALID_ARGUMENT names the field.
absl::Status ReadDenseDecoder(const JsonObject& json, const DenseDecoderDefaults& defaults,
                              ModelConfig& config);

// sliding_window: 0 where it is null, `by_default` where it is not mentioned.
absl::StatusOr<int> ReadSlidingWindow(const JsonObject& json, int by_default);

// Which layers have the window: those that layer_types calls "sliding_attention" and not
// "full_attention", or where there is no such list, those from `first` on. With a window of 0 no
// layer may. INVALID_ARGUMENT names another kind of layer.
absl::Status ReadWindows(const JsonObject& json, int window, int first, ModelConfig& config);

// As ReadWindows(json, sliding_window, max_window_layers), where use_sliding_window is true.
absl::Status ReadSwitchedWindows(const JsonObject& json, ModelConfig& config);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_DENSE_DECODER_CONFIG_H_
