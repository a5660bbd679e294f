#include "kernels/reduce_ranks.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_ranks_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/reduce_ranks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// Elements summed in float32 on the stack before they are rounded.
constexpr int64_t kReduceChunk = 512;

void ReduceRanks(const ReduceRanksParams& params, IndexRange elements) {
  const FloatTag d;
  if (params.out_dtype == DType::kFloat32) {
    SumParts(d, params.dtype, params.parts, params.world, elements.begin,
             static_cast<size_t>(elements.end - elements.begin),
             static_cast<float*>(params.out) + elements.begin);
    return;
  }
  for (int64_t i = elements.begin; i < elements.end; i += kReduceChunk) {
    HWY_ALIGN float sum[kReduceChunk];
    const size_t count = static_cast<size_t>(HWY_MIN(kReduceChunk, elements.end - i));
    SumParts(d, params.dtype, params.parts, params.world, i, count, sum);
    StoreRow(d, sum, count, params.out_dtype, params.out, i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(ReduceRanks);

void ReduceRanksCpu(const ReduceRanksParams& params, IndexRange elements) {
  HWY_DYNAMIC_DISPATCH(ReduceRanks)(params, elements);
}

}  // namespace muster
#endif  // HWY_ONCE
