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
#include "kernels/sampling.h"
#include "worker/engine/step.h"

namespace muster {

struct SamplingOptions {
  float temperature = 0;  // 0 is greedy
  uint32_t top_k = 0;     // 0 keeps all
  float top_p = 1;        // in (0, 1]
  uint64_t seed = 0;
};

// New tokens of one sequence.
struct SequenceSlice {
  std::string sequence_id;
  std::vector<uint32_t> token_ids;
  uint32_t first_position = 0;  // the sequence's length so far
  bool sample = false;          // a token after the last one
  uint32_t top_n = 0;           // most likely tokens to return after the last one
  SamplingOptions sampling;
};

struct ForwardBatch {
  std::string client_id;
  std::optional<Epoch> expected_epoch;
  std::vector<SequenceSlice> slices;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural logarithm, of the unmodified distribution
  friend bool operator==(const TokenLogprob&, const TokenLogprob&) = default;
};

struct SliceOutput {
  std::optional<TokenLogprob> sampled;
  std::vector<TokenLogprob> top;  // most likely first
  friend bool operator==(const SliceOutput&, const SliceOutput&) = default;
};

struct ForwardResult {
  std::vector<SliceOutput> outputs;  // one per slice
  Epoch epoch;
  StepNumber step;
  int bucket = 0;
  absl::Duration queue_time;   // waiting for the engine
  absl::Duration relay_time;   // stamping the step and handing it to the followers
  absl::Duration device_time;  // from the first enqueue to completion
};

struct BatchLimits {
  static constexpr uint32_t kMaxIdBytes = 128;
  static constexpr uint32_t kMaxTopN = 64;

  int max_rows = 0;    // new tokens of all slices
  int max_slices = 0;  // of different sequences
  int vocabulary = 0;
  int max_positions = 0;
};

// What can be said of a batch without knowing the sequences that are held. INVALID_ARGUMENT: ids,
// an empty slice, a token outside the vocabulary, a sequence twice, sampling values, slices beyond
// the limit. RESOURCE_EXHAUSTED: rows beyond it. OUT_OF_RANGE: beyond the model's context.
absl::Status CheckBatch(const ForwardBatch& batch, const BatchLimits& limits);

// What all ranks gather so that `slice`, whose last token is `row`, can be answered; none when it
// asks for nothing.
std::optional<StepOutput> OutputOf(const SequenceSlice& slice, int row);

// What the kernels draw the token at `position` of the slice's sequence with.
SamplingParams ParamsOf(const SequenceSlice& slice, int64_t position);

// 'chat-42', whatever bytes it is made of.
std::string Quoted(absl::string_view id);

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_BATCH_H_
