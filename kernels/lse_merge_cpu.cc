#include "kernels/lse_merge.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/lse_merge_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// The peers' shares of one (row, head); they sum to 1. Peers without keys have none.
struct Shares {
  int32_t count;
  const float* parts[kMaxMergePeers];  // of the row
  float weights[kMaxMergePeers];
};

HWY_INLINE Shares SharesOf(const LseMergeParams& params, int64_t row, int64_t head) {
  Shares shares;
  shares.count = 0;
  float max = -std::numeric_limits<float>::infinity();
  for (int32_t peer = 0; peer < params.world; ++peer) {
    const float lse = params.lse[peer][row * params.lse_row_stride + head];
    if (lse == -std::numeric_limits<float>::infinity()) continue;
    max = lse > max ? lse : max;
    shares.parts[shares.count] =
        static_cast<const float*>(params.parts[peer]) + row * params.part_row_stride;
    shares.weights[shares.count++] = lse;
  }
  float sum = 0;
  for (int32_t i = 0; i < shares.count; ++i) {
    shares.weights[i] = std::exp(shares.weights[i] - max);
    sum += shares.weights[i];
  }
  for (int32_t i = 0; i < shares.count; ++i) shares.weights[i] /= sum;
  return shares;
}

// out[i] = sum of weight * part[offset + i].
HWY_INLINE void MergeColumns(FloatTag d, const Shares& shares, int64_t offset, size_t count,
                             float* out) {
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t left = HWY_MIN(lanes, count - i);
    FloatVec sum = hn::Zero(d);
    for (int32_t peer = 0; peer < shares.count; ++peer) {
      const float* part = shares.parts[peer] + offset + i;
      const FloatVec x = left == lanes ? LoadFloats(d, part) : LoadPartial(d, part, left);
      sum = hn::MulAdd(hn::Set(d, shares.weights[peer]), x, sum);
    }
    if (left == lanes) {
      StoreFloats(d, sum, out + i);
    } else {
      StorePartial(d, sum, left, out + i);
    }
  }
}

void LseMerge(const LseMergeParams& params, IndexRange rows) {
  const FloatTag d;
  const IndexRange columns = params.columns;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    float* out = static_cast<float*>(params.out) + row * params.out_row_stride;
    for (int64_t column = columns.begin; column < columns.end;) {
      const int64_t head = column / params.head_dim;
      const int64_t end = HWY_MIN((head + 1) * params.head_dim, columns.end);
      MergeColumns(d, SharesOf(params, row, head), column - params.part_column,
                   static_cast<size_t>(end - column), out + (column - columns.begin));
      column = end;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(LseMerge);

void LseMergeCpu(const LseMergeParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(LseMerge)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
