#include "kernels/add_rms_norm.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add_rms_norm_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/rms_norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

void AddRmsNorm(const AddRmsNormParams& params, IndexRange rows) {
  const FloatTag d;
  const size_t hidden = static_cast<size_t>(params.hidden);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row * params.hidden;
    const float* sum = static_cast<const float*>(params.a) + offset;
    float* out = static_cast<float*>(params.out) + offset;
    if (params.residual_in != nullptr) {
      AddRow(d, sum, static_cast<const float*>(params.residual_in) + offset, hidden, out);
      sum = out;
    }
    float* residual_out = static_cast<float*>(params.residual_out);
    if (residual_out != nullptr && residual_out + offset != sum) {
      std::memcpy(residual_out + offset, sum, hidden * sizeof(float));
    }
    NormalizeRow(d, sum, params.weight, params.eps, params.hidden, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(AddRmsNorm);

void AddRmsNormCpu(const AddRmsNormParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(AddRmsNorm)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
