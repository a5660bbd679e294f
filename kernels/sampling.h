#ifndef MUSTER_KERNELS_SAMPLING_H_
#define MUSTER_KERNELS_SAMPLING_H_

#include <cstdint>

#include "kernels/shard_top_k.h"

namespace muster {

struct SamplingParams {
  float temperature;  // >= 0 and finite; below 1e-6 is greedy, and nothing below then matters
  int64_t top_k;      // keep the best top_k candidates; 0 keeps all
  float top_p;        // in (0, 1]: then keep the shortest prefix whose share of the kept
                      // probability is >= top_p; 1 keeps all
  uint64_t seed;
  int64_t position;  // of the token to be drawn, in its sequence
};

// Whether the best candidate is taken, whatever the other parameters say.
bool IsGreedy(const SamplingParams& params);
// Whether every token may be drawn: ShardDraw finds the one that is.
bool DrawsFromAll(const SamplingParams& params);

enum class SamplingStatus {
  kOk,
  kInvalidLogit,   // NaN or +infinity among the logits
  kNoCandidate,    // every logit is -infinity, or there is none
  kMoreNeeded,     // the list ends before top_k and top_p do: sample from all logits instead
  kInvalidParams,  // a sampling parameter is out of range
};

struct SampledToken {
  SamplingStatus status;
  int32_t token;  // -1 unless status is kOk
};

// Draws a token: a pure function of its arguments, and the same token however the logits were
// sharded (but where top_p ends within float32 rounding of a token's share). Greedy takes the first
// candidate. Otherwise every token has its own random number, from Philox keyed by the seed and
// counting (position, id), and the largest logit / temperature + Gumbel noise among the kept ones
// wins, which draws from the softmax of those.
//
// `candidates`: in order of Precedes, the best of all tokens. `summary`: of all tokens, with
// inverse_temperature = 1 / temperature (any when greedy).
SampledToken SampleFromCandidates(const SamplingParams& params, const Candidate* candidates,
                                  int64_t candidate_count, const LogitSummary& summary);

// What the candidates are cut to before one is drawn, in the terms of SamplingParams.
struct SamplingFilter {
  int64_t top_k;
  float top_p;
  float inverse_temperature;
};

// How many of the candidates the filter keeps, always the first ones; -1 where the list is too
// short to tell. A pure function, and the same on every machine: ranks that have the same bytes
// decide by it alike.
int64_t CountKept(const SamplingFilter& filter, const Candidate* candidates,
                  int64_t candidate_count, const LogitSummary& summary);

// The same as SampleFromCandidates, from the logits of the whole vocabulary. `scratch`: [vocab].
SampledToken SampleFromLogits(const SamplingParams& params, const float* logits, int64_t vocab,
                              Candidate* scratch);

// The inverse_temperature that the summary for these parameters must be made with.
float InverseTemperature(const SamplingParams& params);

// Natural-log probabilities of candidates under the unmodified distribution (no temperature, no
// filter): logprobs[i] = logit[i] - max - ln(sum).
void LogProbabilities(const Candidate* candidates, int64_t candidate_count,
                      const LogitSummary& summary, float* logprobs);

}  // namespace muster

#endif  // MUSTER_KERNELS_SAMPLING_H_
