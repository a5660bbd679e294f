#include <algorithm>
#include <limits>

#include "kernels/portable_exp.h"
#include "kernels/shard_top_k.h"

namespace muster {

LogitSummary MergeSummaries(const LogitSummary* summaries, int count, float inverse_temperature) {
  LogitSummary merged{-std::numeric_limits<float>::infinity(), 0, 0, 0, 0};
  for (int i = 0; i < count; ++i) {
    merged.max = std::max(merged.max, summaries[i].max);
    merged.count += summaries[i].count;
    merged.invalid_count += summaries[i].invalid_count;
  }
  for (int i = 0; i < count; ++i) {
    if (summaries[i].count == 0) continue;
    const double below = double{summaries[i].max} - merged.max;
    merged.sum += summaries[i].sum * PortableExp(below);
    merged.sum_tempered += summaries[i].sum_tempered * PortableExp(below * inverse_temperature);
  }
  return merged;
}

ShardDraw MergeDraws(const ShardDraw* draws, int count) {
  ShardDraw best = kNoDraw;
  for (int i = 0; i < count; ++i) best = Wins(draws[i], best) ? draws[i] : best;
  return best;
}

int64_t MergeCandidates(const Candidate* const* lists, const int64_t* counts, int list_count,
                        int64_t k, Candidate* out) {
  int64_t taken[kMaxCandidateLists] = {};
  for (int64_t merged = 0; merged < k; ++merged) {
    int best = -1;
    for (int i = 0; i < list_count; ++i) {
      if (taken[i] == counts[i]) continue;
      if (best < 0 || Precedes(lists[i][taken[i]], lists[best][taken[best]])) best = i;
    }
    if (best < 0) return merged;
    out[merged] = lists[best][taken[best]++];
  }
  return k;
}

}  // namespace muster
