#include "kernels/simd_targets.h"
#include "kernels/swiglu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "hwy/contrib/math/math-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

HWY_INLINE FloatVec SwiGluOf(FloatTag d, FloatVec gate, FloatVec up) {
  // 104 is as far as Exp goes; it is infinity by then.
  const FloatVec power = hn::Min(hn::Neg(gate), hn::Set(d, 104.0f));
  const FloatVec one = hn::Set(d, 1.0f);
  return hn::Mul(hn::Div(gate, hn::Add(one, hn::Exp(d, power))), up);
}

void SwiGlu(const SwiGluParams& params, IndexRange rows) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d);
  const size_t width = static_cast<size_t>(params.width);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* gate = static_cast<const float*>(params.gate_up) + row * params.row_stride;
    const float* up = gate + params.width;
    float* out = static_cast<float*>(params.out) + row * params.out_row_stride;
    size_t i = 0;
    for (; i + lanes <= width; i += lanes) {
      StoreFloats(d, SwiGluOf(d, LoadFloats(d, gate + i), LoadFloats(d, up + i)), out + i);
    }
    if (i < width) {
      const size_t left = width - i;
      const FloatVec x = LoadPartial(d, gate + i, left);
      StorePartial(d, SwiGluOf(d, x, LoadPartial(d, up + i, left)), left, out + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(SwiGlu);

void SwiGluCpu(const SwiGluParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(SwiGlu)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
