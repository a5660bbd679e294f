#include "kernels/shard_top_k.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/shard_top_k_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// Vectors whose exponentials are added in float32 before the sum goes on in double.
constexpr size_t kSumBlock = 64;

// Counts the finite and the invalid logits and finds the largest finite one.
HWY_INLINE void Survey(FloatTag d, const float* logits, size_t count, LogitSummary* summary) {
  const size_t lanes = hn::Lanes(d);
  const FloatVec infinity = hn::Inf(d);
  FloatVec maximum = hn::Neg(infinity);
  size_t invalid = 0;
  size_t masked = 0;
  for (size_t i = 0; i < count; i += lanes) {
    const auto here = hn::FirstN(d, count - i);
    const FloatVec logit =
        i + lanes <= count ? LoadFloats(d, logits + i) : LoadPartial(d, logits + i, count - i);
    const auto valid = hn::And(here, hn::Lt(logit, infinity));  // false for NaN
    invalid += hn::CountTrue(d, hn::AndNot(valid, here));
    masked += hn::CountTrue(d, hn::And(here, hn::Eq(logit, hn::Neg(infinity))));
    maximum = hn::Max(maximum, hn::IfThenElse(valid, logit, hn::Neg(infinity)));
  }
  summary->max = hn::GetLane(hn::MaxOfLanes(d, maximum));
  summary->invalid_count = static_cast<int64_t>(invalid);
  summary->count = static_cast<int64_t>(count - invalid - masked);
}

// The sum of exp((logit - maximum) * scale).
HWY_INLINE double SumOfExp(FloatTag d, const float* logits, size_t count, float maximum,
                           float scale) {
  const size_t lanes = hn::Lanes(d);
  double total = 0;
  for (size_t begin = 0; begin < count; begin += kSumBlock * lanes) {
    const size_t end = HWY_MIN(count, begin + kSumBlock * lanes);
    FloatVec sum = hn::Zero(d);
    for (size_t i = begin; i < end; i += lanes) {
      const size_t left = HWY_MIN(lanes, end - i);
      const FloatVec logit =
          left == lanes ? LoadFloats(d, logits + i) : LoadPartial(d, logits + i, left);
      const FloatVec below = hn::Mul(hn::Sub(logit, hn::Set(d, maximum)), hn::Set(d, scale));
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, left), hn::Exp(d, below)));
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

// Keeps the best of all logits offered in a heap whose root is the worst.
class BestCandidates {
 public:
  BestCandidates(Candidate* heap, int64_t limit) : heap_(heap), limit_(limit) {}

  // Below or at this, a logit of a higher id cannot enter.
  float Threshold() const {
    return count_ < limit_ ? -std::numeric_limits<float>::infinity() : heap_[0].logit;
  }

  void Offer(Candidate candidate) {
    if (count_ == limit_) std::pop_heap(heap_, heap_ + count_--, Precedes);
    heap_[count_++] = candidate;
    std::push_heap(heap_, heap_ + count_, Precedes);
  }

  int64_t Finish() {
    std::sort_heap(heap_, heap_ + count_, Precedes);
    return count_;
  }

 private:
  Candidate* const heap_;
  const int64_t limit_;
  int64_t count_ = 0;
};

HWY_INLINE int64_t SelectBest(FloatTag d, const ShardTopKParams& params) {
  BestCandidates best(params.candidates, params.k);
  if (params.k == 0) return 0;
  const size_t lanes = hn::Lanes(d);
  const size_t count = static_cast<size_t>(params.vocab_local);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t left = HWY_MIN(lanes, count - i);
    if (left == lanes) {
      const FloatVec logits = LoadFloats(d, params.logits + i);
      if (hn::AllFalse(d, hn::Gt(logits, hn::Set(d, best.Threshold())))) continue;
    }
    for (size_t j = i; j < i + left; ++j) {
      const float logit = params.logits[j];
      const bool enters =
          logit > best.Threshold() && logit < std::numeric_limits<float>::infinity();
      const int64_t id = params.vocab_begin + static_cast<int64_t>(j);
      if (enters) best.Offer({static_cast<int32_t>(id), logit});
    }
  }
  return best.Finish();
}

using WordTag = hn::RebindToUnsigned<FloatTag>;
using WordVec = hn::Vec<WordTag>;

// The halves of a * b.
HWY_INLINE void Multiply(WordTag d, WordVec a, uint32_t b, WordVec& high, WordVec& low) {
#if HWY_TARGET == HWY_SCALAR
  const uint64_t product = uint64_t{hn::GetLane(a)} * b;
  high = hn::Set(d, static_cast<uint32_t>(product >> 32));
  low = hn::Set(d, static_cast<uint32_t>(product));
#else
  const hn::RepartitionToWide<WordTag> wide;
  const WordVec factor = hn::Set(d, b);
  const auto even = hn::MulEven(a, factor);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a))), factor);
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
#endif
}

// The first of DrawWords(key, id) for each id.
HWY_INLINE WordVec FirstWords(WordTag d, const DrawKey& key, WordVec ids) {
  const uint64_t position = static_cast<uint64_t>(key.position);
  WordVec x0 = ids;
  WordVec x1 = hn::Zero(d);
  WordVec x2 = hn::Set(d, static_cast<uint32_t>(position));
  WordVec x3 = hn::Set(d, static_cast<uint32_t>(position >> 32));
  uint32_t k0 = static_cast<uint32_t>(key.seed);
  uint32_t k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    WordVec high0, low0, high1, low1;
    Multiply(d, x0, kPhiloxFactors[0], high0, low0);
    Multiply(d, x2, kPhiloxFactors[1], high1, low1);
    x0 = hn::Xor(hn::Xor(high1, x1), hn::Set(d, k0));
    x1 = low1;
    x2 = hn::Xor(hn::Xor(high0, x3), hn::Set(d, k1));
    x3 = low0;
    k0 += kPhiloxWeyl[0];
    k1 += kPhiloxWeyl[1];
  }
  return x0;
}

// What the scores of tokens with these first words are at most, as gumbel_noise.h says; NaN where
// nothing is known.
HWY_INLINE FloatVec BoundOfScores(FloatTag d, FloatVec logits, float inverse_temperature,
                                  WordVec words) {
  const WordTag dw;
  const hn::RebindToSigned<FloatTag> di;
  const FloatVec x = hn::Mul(logits, hn::Set(d, inverse_temperature));
  const WordVec n = hn::Not(words);
  const FloatVec upper = hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<16>(n)));
  const FloatVec lower = hn::ConvertTo(d, hn::BitCast(di, hn::And(n, hn::Set(dw, 0xFFFFu))));
  const FloatVec rest =
      hn::MulAdd(upper, hn::Set(d, 0x1p-16f), hn::Mul(lower, hn::Set(d, 0x1p-32f)));
  const FloatVec noise =
      hn::IfThenElse(hn::Eq(rest, hn::Zero(d)), hn::Inf(d), hn::Neg(hn::Log(d, rest)));
  return hn::Add(hn::MulAdd(hn::Abs(x), hn::Set(d, kDrawRounding), x), noise);
}

// Bounds below this are of tokens that do not reach `score`.
HWY_INLINE float CutoffOf(double score) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (score < -kLargest) return -std::numeric_limits<float>::infinity();
  const float rounded = static_cast<float>(HWY_MIN(score, kLargest));
  return rounded - std::abs(rounded) * kDrawRounding - kDrawSlack;
}

// Makes token `index` the best if it wins.
HWY_INLINE void OfferToDraw(const ShardTopKParams& params, size_t index, ShardDraw* best) {
  const float logit = params.logits[index];
  if (!(std::abs(logit) < std::numeric_limits<float>::infinity())) return;
  const int32_t id = static_cast<int32_t>(params.vocab_begin + static_cast<int64_t>(index));
  const double score = double{logit} * params.inverse_temperature + GumbelNoise(params.key, id);
  const ShardDraw draw{score, id, logit};
  if (Wins(draw, *best)) *best = draw;
}

HWY_INLINE ShardDraw DrawBest(FloatTag d, const ShardTopKParams& params) {
  const WordTag dw;
  const size_t lanes = hn::Lanes(d);
  const size_t count = static_cast<size_t>(params.vocab_local);
  ShardDraw best = kNoDraw;
  float cutoff = CutoffOf(best.score);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t left = HWY_MIN(lanes, count - i);
    const FloatVec logits =
        left == lanes ? LoadFloats(d, params.logits + i) : LoadPartial(d, params.logits + i, left);
    const uint32_t first = static_cast<uint32_t>(params.vocab_begin + static_cast<int64_t>(i));
    const WordVec words = FirstWords(dw, params.key, hn::Iota(dw, first));
    const FloatVec bounds = BoundOfScores(d, logits, params.inverse_temperature, words);
    if (hn::AllTrue(d, hn::Lt(bounds, hn::Set(d, cutoff)))) continue;
    HWY_ALIGN float bound[kMaxLanes];
    hn::Store(bounds, d, bound);
    for (size_t j = 0; j < left; ++j) {
      if (bound[j] < cutoff) continue;
      OfferToDraw(params, i + j, &best);
      cutoff = CutoffOf(best.score);
    }
  }
  return best;
}

void ShardTopK(const ShardTopKParams& params) {
  const FloatTag d;
  const size_t count = static_cast<size_t>(params.vocab_local);
  LogitSummary summary{};
  Survey(d, params.logits, count, &summary);
  if (summary.count > 0 && summary.invalid_count == 0) {
    summary.sum = SumOfExp(d, params.logits, count, summary.max, 1.0f);
    summary.sum_tempered =
        params.inverse_temperature == 1.0f
            ? summary.sum
            : SumOfExp(d, params.logits, count, summary.max, params.inverse_temperature);
  }
  *params.candidate_count = SelectBest(d, params);
  *params.summary = summary;
  if (params.draw != nullptr) *params.draw = DrawBest(d, params);
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(ShardTopK);

void ShardTopKCpu(const ShardTopKParams& params) { HWY_DYNAMIC_DISPATCH(ShardTopK)(params); }

}  // namespace muster
#endif  // HWY_ONCE
