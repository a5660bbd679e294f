// What a scheduler asks of a replica and gets back, in plain values.
#ifndef MUSTER_WORKER_ENGINE_BATCH_H_
#define MUSTER_WORKER_ENGINE_BATCH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/trace_context.h"
#include "kernels/sampling.h"
#include "worker/engine/step.h"

namespace muster {

struct SamplingOptions {
  float temperature = 0;  // 0 is greedy
  uint32_t top_k = 0;     // 0 keeps all
  float top_p = 1;        // in (0, 1]
  uint64_t seed = 0;
};

// New positions of one sequence.
struct SequenceSlice {
  std::string sequence_id;
  std::vector<uint32_t> token_ids;
  uint32_t first_position = 0;  // the sequence's length so far, in each of the layers
  bool sample = false;          // a token after the last one
  uint32_t top_n = 0;           // most likely tokens to return after the last one
  SamplingOptions sampling;
  std::vector<float> hidden_states;  // [tokens, hidden]: enter the first layer; or token ids
  std::optional<LayerRange> layers;  // none: all
  bool return_logits = false;        // after the last token
  std::optional<uint32_t> return_hidden_states;  // as they enter this layer
};

struct ForwardBatch {
  std::string client_id;
  std::optional<Epoch> expected_epoch;
  std::vector<SequenceSlice> slices;
  std::string request_id;  // by which a retry is recognised; may be empty
  TraceContext trace;      // that it is part of; no part of what is asked
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural logarithm, of the unmodified distribution
  friend bool operator==(const TokenLogprob&, const TokenLogprob&) = default;
};

struct SliceOutput {
  std::optional<TokenLogprob> sampled;
  std::vector<TokenLogprob> top;     // most likely first
  std::vector<float> logits;         // [vocabulary], where asked for
  std::vector<float> hidden_states;  // [tokens of the slice, hidden], where asked for
  absl::Status error;                // why there is no answer, though the slice ran
  friend bool operator==(const SliceOutput&, const SliceOutput&) = default;
};

struct ForwardResult {
  std::vector<SliceOutput> outputs;  // one per slice
  Epoch epoch;
  StepNumber step;             // the last that ran for it
  int bucket = 0;              // rows of all its steps, padding included
  absl::Duration queue_time;   // waiting for the engine
  absl::Duration relay_time;   // stamping the steps and handing them to the followers
  absl::Duration device_time;  // from the first enqueue to completion
};

struct BatchLimits {
  static constexpr uint32_t kMaxIdBytes = 128;
  static constexpr uint32_t kMaxTopN = 64;

  int max_rows = 0;    // new tokens of all slices
  int max_slices = 0;  // of different sequences
  int vocabulary = 0;
  int max_positions = 0;
  int layers = 0;
  int hidden = 0;
};

// INVALID_ARGUMENT unless an id has 1 to kMaxIdBytes bytes. `what` begins the message.
absl::Status CheckId(absl::string_view what, absl::string_view id);

// What can be said of a batch without knowing the sequences that are held. INVALID_ARGUMENT: ids,
// an empty slice, a token outside the vocabulary, hidden states that are not whole rows of finite
// numbers, layers that the model does not have or that cannot give what is asked for, a sequence
// twice, sampling values, slices beyond the limit. RESOURCE_EXHAUSTED: rows beyond it.
// OUT_OF_RANGE: beyond the model's context.
absl::Status CheckBatch(const ForwardBatch& batch, const BatchLimits& limits);

// Of a slice that CheckBatch passed.
inline LayerRange LayersOf(const SequenceSlice& slice, const BatchLimits& limits) {
  return slice.layers.value_or(LayerRange{0, limits.layers});
}
inline int PositionsOf(const SequenceSlice& slice, const BatchLimits& limits) {
  const size_t count = slice.hidden_states.empty()
                           ? slice.token_ids.size()
                           : slice.hidden_states.size() / static_cast<size_t>(limits.hidden);
  return static_cast<int>(count);
}

// What all ranks gather so that `slice`, whose last token is `row`, can be answered; none when it
// asks for nothing.
std::optional<StepOutput> OutputOf(const SequenceSlice& slice, int row);

// What the kernels draw the token at `position` of the slice's sequence with.
SamplingParams ParamsOf(const SequenceSlice& slice, int64_t position);

// 'chat-42', whatever bytes it is made of.
std::string Quoted(absl::string_view id);

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_BATCH_H_
