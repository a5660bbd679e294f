#include "kernels/kernel_test_support.h"

#include "kernels/simd_targets.h"
// The targets that kernels are compiled for are chosen above.
#include <hwy/targets.h>

#include <bit>
#include <cmath>

namespace muster::testing {

::testing::AssertionResult AllSame(const float* expected, const float* actual, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan(expected[i]) && std::isnan(actual[i])) continue;
    if (std::bit_cast<uint32_t>(expected[i]) == std::bit_cast<uint32_t>(actual[i])) continue;
    return ::testing::AssertionFailure() << "first difference at index " << i << " of " << count
                                         << ": expected " << expected[i] << ", got " << actual[i];
  }
  return ::testing::AssertionSuccess();
}

void ForEachTarget(void (*fn)()) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    fn();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace muster::testing
