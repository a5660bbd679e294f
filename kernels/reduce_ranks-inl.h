// The one order of operations of a sum over ranks, shared by the plain and the fused reduction.
#if defined(MUSTER_KERNELS_REDUCE_RANKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MUSTER_KERNELS_REDUCE_RANKS_INL_H_
#undef MUSTER_KERNELS_REDUCE_RANKS_INL_H_
#else
#define MUSTER_KERNELS_REDUCE_RANKS_INL_H_
#endif

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

template <typename T>
HWY_INLINE const T* PartOf(const void* const* parts, int32_t rank, int64_t offset) {
  return static_cast<const T*>(parts[rank]) + offset;
}

template <typename T>
HWY_INLINE void SumTyped(FloatTag d, const void* const* parts, int32_t world, int64_t offset,
                         size_t count, float* sum) {
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const T* first = PartOf<T>(parts, 0, offset) + i;
    FloatVec sum0 = LoadFloats(d, first);
    FloatVec sum1 = LoadFloats(d, first + lanes);
    FloatVec sum2 = LoadFloats(d, first + 2 * lanes);
    FloatVec sum3 = LoadFloats(d, first + 3 * lanes);
    for (int32_t rank = 1; rank < world; ++rank) {
      const T* next = PartOf<T>(parts, rank, offset) + i;
      sum0 = hn::Add(sum0, LoadFloats(d, next));
      sum1 = hn::Add(sum1, LoadFloats(d, next + lanes));
      sum2 = hn::Add(sum2, LoadFloats(d, next + 2 * lanes));
      sum3 = hn::Add(sum3, LoadFloats(d, next + 3 * lanes));
    }
    StoreFloats(d, sum0, sum + i);
    StoreFloats(d, sum1, sum + i + lanes);
    StoreFloats(d, sum2, sum + i + 2 * lanes);
    StoreFloats(d, sum3, sum + i + 3 * lanes);
  }
  for (; i < count; i += lanes) {
    const size_t left = count - i < lanes ? count - i : lanes;
    FloatVec total = LoadPartial(d, PartOf<T>(parts, 0, offset) + i, left);
    for (int32_t rank = 1; rank < world; ++rank) {
      total = hn::Add(total, LoadPartial(d, PartOf<T>(parts, rank, offset) + i, left));
    }
    StorePartial(d, total, left, sum + i);
  }
}

// sum[i] = parts[0][offset + i] + parts[1][offset + i] + ...; sum may be one of the parts.
inline HWY_NOINLINE void SumParts(FloatTag d, DType dtype, const void* const* parts, int32_t world,
                                  int64_t offset, size_t count, float* sum) {
  switch (dtype) {
    case DType::kFloat32:
      return SumTyped<float>(d, parts, world, offset, count, sum);
    case DType::kBFloat16:
      return SumTyped<BFloat16>(d, parts, world, offset, count, sum);
    case DType::kFloat16:
      return SumTyped<Float16>(d, parts, world, offset, count, sum);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#endif  // MUSTER_KERNELS_REDUCE_RANKS_INL_H_
