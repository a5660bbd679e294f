#include "kernels/add_bias.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add_bias_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

void AddBias(const AddBiasParams& params, IndexRange rows) {
  const FloatTag d;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    float* y = static_cast<float*>(params.y) + row * params.row_stride;
    AddRow(d, y, params.bias, static_cast<size_t>(params.width), y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(AddBias);

void AddBiasCpu(const AddBiasParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(AddBias)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
