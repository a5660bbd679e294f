#include "kernels/rms_norm.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/rms_norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

void RmsNorm(const RmsNormParams& params, IndexRange rows) {
  const FloatTag d;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row * params.hidden;
    NormalizeRow(d, params.x + offset, params.weight, params.eps, params.hidden,
                 params.out + offset);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(RmsNorm);

void RmsNormCpu(const RmsNormParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
