#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shard_top_k.h"

namespace muster {

void ShardTopKReference(const ShardTopKParams& params) {
  LogitSummary summary{-std::numeric_limits<float>::infinity(), 0, 0, 0, 0};
  std::vector<Candidate> candidates;
  for (int64_t i = 0; i < params.vocab_local; ++i) {
    const float logit = params.logits[i];
    if (std::isnan(logit) || logit == std::numeric_limits<float>::infinity()) {
      ++summary.invalid_count;
    } else if (logit != -std::numeric_limits<float>::infinity()) {
      candidates.push_back({static_cast<int32_t>(params.vocab_begin + i), logit});
      summary.max = std::max(summary.max, logit);
    }
  }
  summary.count = static_cast<int64_t>(candidates.size());
  for (const Candidate& candidate : candidates) {
    const double below = double{candidate.logit} - summary.max;
    summary.sum += std::exp(below);
    summary.sum_tempered += std::exp(below * params.inverse_temperature);
  }
  std::sort(candidates.begin(), candidates.end(), Precedes);
  *params.candidate_count = std::min(params.k, summary.count);
  std::copy_n(candidates.begin(), *params.candidate_count, params.candidates);
  *params.summary = summary;
  if (params.draw == nullptr) return;
  ShardDraw best = kNoDraw;
  for (const auto& [id, logit] : candidates) {
    const double score = double{logit} * params.inverse_temperature + GumbelNoise(params.key, id);
    if (const ShardDraw draw{score, id, logit}; Wins(draw, best)) best = draw;
  }
  *params.draw = best;
}

}  // namespace muster
