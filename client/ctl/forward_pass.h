// New positions of one sequence, carried once through all layers of a model or some of them.
#ifndef MUSTER_CLIENT_CTL_FORWARD_PASS_H_
#define MUSTER_CLIENT_CTL_FORWARD_PASS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/npy.h"

namespace muster::ctl {

// Layers [begin, end) as "begin:end". INVALID_ARGUMENT: something else, or none of them.
absl::StatusOr<v1::LayerRange> ParseLayers(const std::string& text);

struct PassOptions {
  std::string client_id;
  std::string sequence_id;
  uint32_t first_position = 0;
  // One of the two: token ids, or what enters the first layer, [tokens, hidden].
  std::vector<uint32_t> token_ids;
  std::optional<FloatArray> hidden_states;
  std::optional<v1::LayerRange> layers;  // all
  // After the last position, where the last layer is among them: how many most likely tokens to
  // return, and how to sample one.
  uint32_t top_n = 0;
  v1::SamplingParameters sampling;
  bool return_logits = false;
  // Of all positions, as they leave the last of the layers.
  bool return_hidden_states = false;
};

struct Pass {
  uint64_t epoch = 0;
  uint64_t step = 0;
  v1::LayerRange layers;
  absl::Duration device_time;
  // With the last layer only.
  std::optional<uint32_t> token;
  float logprob = 0;
  std::vector<v1::TokenLogprob> top;
  // What was asked for.
  std::vector<float> logits;  // [vocabulary]
  FloatArray hidden_states;   // [tokens, hidden]
};

// Runs in as many requests as the leader's limits make of it; what a request has run stays in the
// sequence when a later one is refused, and the sequence stays when all are done.
// Errors: INVALID_ARGUMENT (layers, shapes or wishes that the model cannot fulfil, with the
// numbers), and as of Inference.Forward.
absl::StatusOr<Pass> RunPass(const InferenceClient& leader, const PassOptions& options);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FORWARD_PASS_H_
