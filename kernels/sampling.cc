#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>

#include "kernels/portable_exp.h"

namespace muster {
namespace {

constexpr float kGreedyBelow = 1e-6f;

// Lists that are tried before the whole vocabulary is sorted.
constexpr int64_t kFirstCandidates = 256;

bool IsValid(const SamplingParams& params) {
  return params.temperature >= 0 && std::isfinite(params.temperature) && params.top_k >= 0 &&
         params.top_p > 0 && params.top_p <= 1;
}

double Weight(const Candidate& candidate, const LogitSummary& summary, float inverse_temperature) {
  return PortableExp((double{candidate.logit} - summary.max) * inverse_temperature);
}

// What those that top_k keeps weigh, as far as the listed ones tell.
struct Mass {
  double least;
  double most;
};

Mass MassOf(const SamplingFilter& filter, const Candidate* candidates, int64_t listed,
            int64_t limit, const LogitSummary& summary) {
  if (limit == summary.count) return {summary.sum_tempered, summary.sum_tempered};
  double mass = 0;
  double weight = 0;
  for (int64_t i = 0; i < listed; ++i) {
    weight = Weight(candidates[i], summary, filter.inverse_temperature);
    mass += weight;
  }
  const double most = mass + static_cast<double>(limit - listed) * weight;
  return {mass, std::min(most, std::max(mass, summary.sum_tempered))};
}

int32_t Draw(const SamplingParams& params, const Candidate* candidates, int64_t kept) {
  const float inverse_temperature = InverseTemperature(params);
  const DrawKey key{params.seed, params.position};
  int32_t token = -1;
  double best = 0;
  for (int64_t i = 0; i < kept; ++i) {
    const double score =
        double{candidates[i].logit} * inverse_temperature + GumbelNoise(key, candidates[i].id);
    if (token < 0 || score > best) {
      best = score;
      token = candidates[i].id;
    }
  }
  return token;
}

SampledToken DrawFromAll(const SamplingParams& params, const float* logits, int64_t vocab) {
  int64_t count = 0;
  LogitSummary summary{};
  ShardDraw draw{};
  ShardTopKCpu({.logits = logits,
                .vocab_local = vocab,
                .vocab_begin = 0,
                .k = 0,
                .inverse_temperature = InverseTemperature(params),
                .candidates = nullptr,
                .candidate_count = &count,
                .summary = &summary,
                .draw = &draw,
                .key = {params.seed, params.position}});
  if (summary.invalid_count > 0) return {SamplingStatus::kInvalidLogit, -1};
  if (summary.count == 0) return {SamplingStatus::kNoCandidate, -1};
  return {SamplingStatus::kOk, draw.id};
}

}  // namespace

bool IsGreedy(const SamplingParams& params) { return params.temperature < kGreedyBelow; }

bool DrawsFromAll(const SamplingParams& params) {
  return !IsGreedy(params) && params.top_k == 0 && params.top_p == 1.0f;
}

int64_t CountKept(const SamplingFilter& filter, const Candidate* candidates,
                  int64_t candidate_count, const LogitSummary& summary) {
  const int64_t limit = filter.top_k > 0 ? std::min(filter.top_k, summary.count) : summary.count;
  const int64_t listed = std::min(limit, candidate_count);
  if (filter.top_p == 1.0f) return listed < limit ? -1 : limit;
  const Mass kept = MassOf(filter, candidates, listed, limit, summary);
  double mass = 0;
  for (int64_t i = 0; i < listed; ++i) {
    mass += Weight(candidates[i], summary, filter.inverse_temperature);
    if (mass >= filter.top_p * kept.most) return i + 1;
    if (mass >= filter.top_p * kept.least) return -1;
  }
  return listed < limit ? -1 : limit;
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
  const SamplingFilter filter{params.top_k, params.top_p, InverseTemperature(params)};
  const int64_t kept = CountKept(filter, candidates, candidate_count, summary);
  if (kept < 0) return {SamplingStatus::kMoreNeeded, -1};
  return {SamplingStatus::kOk, Draw(params, candidates, kept)};
}

SampledToken SampleFromLogits(const SamplingParams& params, const float* logits, int64_t vocab,
                              Candidate* scratch) {
  if (!IsValid(params)) return {SamplingStatus::kInvalidParams, -1};
  if (DrawsFromAll(params)) return DrawFromAll(params, logits, vocab);
  int64_t k = IsGreedy(params) ? 1 : params.top_k > 0 ? params.top_k : kFirstCandidates;
  while (true) {
    k = std::min(k, vocab);
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
