// One prompt carried through a leader, chunk by chunk and then token by token.
#ifndef MUSTER_CLIENT_CTL_GENERATION_H_
#define MUSTER_CLIENT_CTL_GENERATION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/ctl/fleet_client.h"

namespace muster::ctl {

struct GenerationOptions {
  std::vector<uint32_t> prompt_tokens;
  uint32_t max_tokens = 1;
  // How many most likely tokens to return per step, 0 to 64.
  uint32_t top_n = 0;
  v1::SamplingParameters sampling;
  // Go on after the model's end tokens.
  bool ignore_eos = false;
};

struct GenerationStep {
  uint32_t token = 0;
  std::vector<v1::TokenLogprob> top;
};

struct Generation {
  uint64_t epoch = 0;
  std::vector<GenerationStep> steps;
  absl::Duration time_to_first_token;
  // Of the tokens after the first.
  absl::Duration decode_time;
};

// Runs one sequence to an end token or `max_tokens`, and frees it again, however it ends. Hands
// on every step as it comes.
// Errors: as of Inference.Forward.
absl::StatusOr<Generation> Generate(const InferenceClient& leader, const GenerationOptions& options,
                                    const std::function<void(const GenerationStep&)>& on_step);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_GENERATION_H_
