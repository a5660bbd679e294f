#include "kernels/shard_top_k.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/shard_top_k_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
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
