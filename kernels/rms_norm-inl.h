// The one order of operations of RMS normalisation, shared by every kernel that ends in it.
#if defined(MUSTER_KERNELS_RMS_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MUSTER_KERNELS_RMS_NORM_INL_H_
#undef MUSTER_KERNELS_RMS_NORM_INL_H_
#else
#define MUSTER_KERNELS_RMS_NORM_INL_H_
#endif

#include <cmath>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// Elements that a row is processed by; a multiple of what SquareSum takes at a time.
inline constexpr size_t kNormChunk = 512;

// The sum of squares of a row, in float32. A row may come in pieces of kNormChunk elements, the
// last one shorter: the bits are those of the whole.
class SquareSum {
 public:
  HWY_INLINE explicit SquareSum(FloatTag d)
      : sum0_(hn::Zero(d)), sum1_(hn::Zero(d)), sum2_(hn::Zero(d)), sum3_(hn::Zero(d)) {}

  HWY_INLINE void Add(FloatTag d, const float* x, size_t count) {
    const size_t lanes = hn::Lanes(d);
    size_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
      const FloatVec x0 = LoadFloats(d, x + i);
      const FloatVec x1 = LoadFloats(d, x + i + lanes);
      const FloatVec x2 = LoadFloats(d, x + i + 2 * lanes);
      const FloatVec x3 = LoadFloats(d, x + i + 3 * lanes);
      AddFour(x0, x1, x2, x3);
    }
    for (; i + lanes <= count; i += lanes) {
      const FloatVec x0 = LoadFloats(d, x + i);
      sum0_ = hn::MulAdd(x0, x0, sum0_);
    }
    if (i < count) {
      const FloatVec x1 = LoadPartial(d, x + i, count - i);
      sum1_ = hn::MulAdd(x1, x1, sum1_);
    }
  }

  // The next four vectors of a row, when they are in registers already.
  HWY_INLINE void AddFour(FloatVec x0, FloatVec x1, FloatVec x2, FloatVec x3) {
    sum0_ = hn::MulAdd(x0, x0, sum0_);
    sum1_ = hn::MulAdd(x1, x1, sum1_);
    sum2_ = hn::MulAdd(x2, x2, sum2_);
    sum3_ = hn::MulAdd(x3, x3, sum3_);
  }

  HWY_INLINE float Total(FloatTag d) const {
    const FloatVec sum = hn::Add(hn::Add(sum0_, sum1_), hn::Add(sum2_, sum3_));
    return hn::GetLane(hn::SumOfLanes(d, sum));
  }

 private:
  FloatVec sum0_;
  FloatVec sum1_;
  FloatVec sum2_;
  FloatVec sum3_;
};

HWY_INLINE float InverseRms(float square_sum, int64_t hidden, float eps) {
  return 1.0f / std::sqrt(square_sum / static_cast<float>(hidden) + eps);
}

// out = x * scale * weight; out may be x.
inline HWY_NOINLINE void ScaleRow(FloatTag d, const float* x, const float* weight, float scale,
                                  size_t count, float* out) {
  const FloatVec scales = hn::Set(d, scale);
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const FloatVec scaled = hn::Mul(LoadFloats(d, x + i), scales);
    StoreFloats(d, hn::Mul(scaled, LoadFloats(d, weight + i)), out + i);
  }
  if (i < count) {
    const FloatVec scaled = hn::Mul(LoadPartial(d, x + i, count - i), scales);
    const FloatVec weights = LoadPartial(d, weight + i, count - i);
    StorePartial(d, hn::Mul(scaled, weights), count - i, out + i);
  }
}

HWY_INLINE void NormalizeRow(FloatTag d, const float* x, const float* weight, float eps,
                             int64_t hidden, float* out) {
  SquareSum squares(d);
  squares.Add(d, x, static_cast<size_t>(hidden));
  const float scale = InverseRms(squares.Total(d), hidden, eps);
  ScaleRow(d, x, weight, scale, static_cast<size_t>(hidden), out);
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#endif  // MUSTER_KERNELS_RMS_NORM_INL_H_
