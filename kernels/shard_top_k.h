#ifndef MUSTER_KERNELS_SHARD_TOP_K_H_
#define MUSTER_KERNELS_SHARD_TOP_K_H_

#include <cstdint>
#include <limits>

#include "kernels/cuda_launch.h"
#include "kernels/gumbel_noise.h"

namespace muster {

// A token of the vocabulary with its logit.
struct Candidate {
  int32_t id;
  float logit;
};

// The order of candidates everywhere: higher logit first, of equal logits (-0 and +0 are equal)
// the lower id.
constexpr bool Precedes(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// What is needed of a set of logits to turn any of them into a probability.
struct LogitSummary {
  float max;              // -infinity where no token can be chosen
  double sum;             // of exp(logit - max)
  double sum_tempered;    // of exp((logit - max) * inverse_temperature)
  int64_t count;          // tokens that can be chosen: finite logits
  int64_t invalid_count;  // NaN or +infinity; when > 0 the sums say nothing
};

// The winner of a draw among many tokens.
struct ShardDraw {
  double
      score;   // logit * inverse_temperature + GumbelNoise(key, id); -infinity where there is none
  int32_t id;  // -1 where there is none
  float logit;
};

// Among nothing.
inline constexpr ShardDraw kNoDraw{-std::numeric_limits<double>::infinity(), -1,
                                   -std::numeric_limits<float>::infinity()};

// Whether the token of `a` is drawn rather than that of `b`.
constexpr bool Wins(const ShardDraw& a, const ShardDraw& b) {
  return a.score > b.score || (a.score == b.score && Precedes({a.id, a.logit}, {b.id, b.logit}));
}

// From one rank's shard of the logits: the k best candidates, a summary of them all, and the winner
// of a draw among them all. Token ids are vocab_begin + index. A logit of -infinity is a token that
// must not be chosen: it is no candidate. Invalid logits (NaN, +infinity) are counted, and are no
// candidates either. Only candidates are drawn.
struct ShardTopKParams {
  const float* logits;  // [vocab_local]
  int64_t vocab_local;
  int64_t vocab_begin;
  int64_t k;                  // 0 or more
  float inverse_temperature;  // of sum_tempered and the draw; 1 where no sampling follows
  Candidate* candidates;      // [k], written in order of Precedes
  int64_t* candidate_count;   // min(k, summary->count)
  LogitSummary* summary;
  ShardDraw* draw = nullptr;  // none where null
  DrawKey key = {};           // of the draw
};

void ShardTopKReference(const ShardTopKParams& params);
void ShardTopKCpu(const ShardTopKParams& params);

// What ShardTopKCuda takes at most.
inline constexpr int kMaxCudaShards = 32;
inline constexpr int64_t kMaxCudaShardVocab = 256 << 10;
inline constexpr int64_t kMaxCudaCandidates = 256;

// Of device memory, aligned to 16 bytes, for `count` shards of at most `vocab_local` logits and at
// most k candidates.
int64_t ShardTopKScratchBytes(int count, int64_t vocab_local, int64_t k);
// Of `count` shards, an array of the host that need not outlive the call, at once. Candidates,
// counts and maxima are the reference's bit for bit; the sums are its within 1e-6, and the same for
// the same logits. The draw is its where two scores do not lie within 1e-14 of each other.
// cudaErrorInvalidValue beyond the limits above.
CudaLaunch ShardTopKCuda(const ShardTopKParams* shards, int count, void* scratch,
                         CudaStream stream);

// Merges summaries in the order given (that of the ranks). All must have been made with the same
// inverse_temperature. The same bits on every machine.
LogitSummary MergeSummaries(const LogitSummary* summaries, int count, float inverse_temperature);

// The winner among the winners of shards.
ShardDraw MergeDraws(const ShardDraw* draws, int count);

// Merges ordered candidate lists over disjoint ids into the first `k` of their union; returns how
// many there are. lists[i] has counts[i] candidates; `out` overlaps none of them.
// Constant space: at most kMaxCandidateLists lists.
inline constexpr int kMaxCandidateLists = 256;
int64_t MergeCandidates(const Candidate* const* lists, const int64_t* counts, int list_count,
                        int64_t k, Candidate* out);

}  // namespace muster

#endif  // MUSTER_KERNELS_SHARD_TOP_K_H_
