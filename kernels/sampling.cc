#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>

namespace muster {
namespace {

constexpr float kGreedyBelow = 1e-6f;

// Lists that are tried before the whole vocabulary is sorted.
constexpr int64_t kFirstCandidates = 256;

bool IsValid(const SamplingParams& params) {
  return params.temperature >= 0 && std::isfinite(params.temperature) && params.top_k >= 0 &&
         params.top_p > 0 && params.top_p <= 1;
}

bool IsGreedy(const SamplingParams& params) { return params.temperature < kGreedyBelow; }

// -ln(-ln(u)), u uniform in (0, 1): the noise that makes an argmax a draw from the softmax.
double GumbelNoise(const SamplingParams& params, int32_t id) {
  const uint64_t position = static_cast<uint64_t>(params.position);
  const std::array<uint32_t, 4> words =
      Philox4x32({static_cast<uint32_t>(id), 0, static_cast<uint32_t>(position),
                  static_cast<uint32_t>(position >> 32)},
                 {static_cast<uint32_t>(params.seed), static_cast<uint32_t>(params.seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 21) ^ (words[1] >> 11);  // 53 of them
  const double uniform = (static_cast<double>(bits) + 0.5) * 0x1p-53;
  return -std::log(-std::log(uniform));
}

double Weight(const Candidate& candidate, const LogitSummary& summary, float inverse_temperature) {
  return std::exp((double{candidate.logit} - summary.max) * inverse_temperature);
}

// How many candidates top_k and top_p keep; -1 where the list is too short to tell.
int64_t CountKept(const SamplingParams& params, const Candidate* candidates,
                  int64_t candidate_count, const LogitSummary& summary) {
  const float inverse_temperature = InverseTemperature(params);
  const int64_t limit = params.top_k > 0 ? std::min(params.top_k, summary.count) : summary.count;
  const int64_t listed = std::min(limit, candidate_count);
  if (params.top_k > 0 && listed < limit) return -1;
  if (params.top_p == 1.0f) return listed < limit ? -1 : limit;

  double kept_mass = summary.sum_tempered;
  if (limit < summary.count) {
    kept_mass = 0;
    for (int64_t i = 0; i < limit; ++i) {
      kept_mass += Weight(candidates[i], summary, inverse_temperature);
    }
  }
  double mass = 0;
  for (int64_t i = 0; i < listed; ++i) {
    mass += Weight(candidates[i], summary, inverse_temperature);
    if (mass >= params.top_p * kept_mass) return i + 1;
  }
  return listed < limit ? -1 : limit;
}

int32_t Draw(const SamplingParams& params, const Candidate* candidates, int64_t kept) {
  const float inverse_temperature = InverseTemperature(params);
  int32_t token = -1;
  double best = 0;
  for (int64_t i = 0; i < kept; ++i) {
    const double score =
        double{candidates[i].logit} * inverse_temperature + GumbelNoise(params, candidates[i].id);
    if (token < 0 || score > best) {
      best = score;
      token = candidates[i].id;
    }
  }
  return token;
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                   const std::array<uint32_t, 2>& key) {
  std::array<uint32_t, 4> x = counter;
  std::array<uint32_t, 2> k = key;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * x[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * x[2];
    x = {static_cast<uint32_t>(product1 >> 32) ^ x[1] ^ k[0], static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ x[3] ^ k[1], static_cast<uint32_t>(product0)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return x;
}

float InverseTemperature(const SamplingParams& params) {
  return IsGreedy(params) ? 1.0f : 1.0f / params.temperature;
}

SampledToken SampleFromCandidates(const SamplingParams& params, const Candidate* candidates,
                                  int64_t candidate_count, const LogitSummary& summary) {
  if (!IsValid(params)) return {SamplingStatus::kInvalidParams, -1};
  if (summary.invalid_count > 0) return {SamplingStatus::kInvalidLogit, -1};
  if (summary.count == 0) return {SamplingStatus::kNoCandidate, -1};
  if (candidate_count == 0) return {SamplingStatus::kMoreNeeded, -1};
  if (IsGreedy(params)) return {SamplingStatus::kOk, candidates[0].id};
  const int64_t kept = CountKept(params, candidates, candidate_count, summary);
  if (kept < 0) return {SamplingStatus::kMoreNeeded, -1};
  return {SamplingStatus::kOk, Draw(params, candidates, kept)};
}

SampledToken SampleFromLogits(const SamplingParams& params, const float* logits, int64_t vocab,
                              Candidate* scratch) {
  if (!IsValid(params)) return {SamplingStatus::kInvalidParams, -1};
  const bool all = !IsGreedy(params) && params.top_k == 0 && params.top_p == 1.0f;
  int64_t k = IsGreedy(params) ? 1 : params.top_k > 0 ? params.top_k : kFirstCandidates;
  while (true) {
    k = all ? vocab : std::min(k, vocab);
    int64_t count = 0;
    LogitSummary summary{};
    ShardTopKCpu({logits, vocab, 0, k, InverseTemperature(params), scratch, &count, &summary});
    const SampledToken sampled = SampleFromCandidates(params, scratch, count, summary);
    if (sampled.status != SamplingStatus::kMoreNeeded || k == vocab) return sampled;
    k *= 16;
  }
}

void LogProbabilities(const Candidate* candidates, int64_t candidate_count,
                      const LogitSummary& summary, float* logprobs) {
  const double log_sum = std::log(summary.sum);
  for (int64_t i = 0; i < candidate_count; ++i) {
    logprobs[i] = static_cast<float>(double{candidates[i].logit} - summary.max - log_sum);
  }
}

}  // namespace muster
