// Vectors of float32 over memory of any element type; compiled once per instruction set.
#if defined(MUSTER_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MUSTER_KERNELS_SIMD_INL_H_
#undef MUSTER_KERNELS_SIMD_INL_H_
#else
#define MUSTER_KERNELS_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

inline constexpr size_t kMaxLanes = hn::MaxLanes(FloatTag());

HWY_INLINE FloatVec LoadFloats(FloatTag d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE FloatVec LoadFloats(FloatTag d, const BFloat16* from) {
  const hn::Rebind<uint16_t, FloatTag> du16;
  const hn::RebindToUnsigned<FloatTag> du32;
  const auto bits = hn::PromoteTo(du32, hn::LoadU(du16, &from->bits));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

HWY_INLINE FloatVec LoadFloats(FloatTag d, const Float16* from) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const hn::Rebind<hwy::float16_t, FloatTag> df16;
  return hn::PromoteTo(d, hn::LoadU(df16, reinterpret_cast<const hwy::float16_t*>(from)));
#else
  HWY_ALIGN float lanes[kMaxLanes];
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = static_cast<float>(from[i]);
  return hn::Load(d, lanes);
#endif
}

HWY_INLINE void StoreFloats(FloatTag d, FloatVec value, float* to) { hn::StoreU(value, d, to); }

// Rounds as the constructor of BFloat16 does.
HWY_INLINE void StoreFloats(FloatTag /*d*/, FloatVec value, BFloat16* to) {
  const hn::Rebind<uint16_t, FloatTag> du16;
  const hn::RebindToUnsigned<FloatTag> du32;
  const hn::RebindToSigned<FloatTag> di32;
  const auto word = hn::BitCast(du32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(word), hn::Set(du32, 1u));
  const auto rounded = hn::Add(word, hn::Add(odd, hn::Set(du32, 0x7FFFu)));
  const auto quiet = hn::Or(word, hn::Set(du32, 0x400000u));
  const auto is_nan = hn::RebindMask(du32, hn::IsNaN(value));
  const auto upper = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
  hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di32, upper)), du16, &to->bits);
}

HWY_INLINE void StoreFloats(FloatTag d, FloatVec value, Float16* to) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const hn::Rebind<hwy::float16_t, FloatTag> df16;
  hn::StoreU(hn::DemoteTo(df16, value), df16, reinterpret_cast<hwy::float16_t*>(to));
#else
  HWY_ALIGN float lanes[kMaxLanes];
  hn::Store(value, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) to[i] = Float16(lanes[i]);
#endif
}

// The first `count` < Lanes(d) elements, then zeros; touches no memory beyond them.
template <typename T>
HWY_INLINE FloatVec LoadPartial(FloatTag d, const T* from, size_t count) {
  HWY_ALIGN T padded[kMaxLanes];
  std::memset(static_cast<void*>(padded), 0, sizeof(padded));
  std::memcpy(static_cast<void*>(padded), from, count * sizeof(T));
  return LoadFloats(d, padded);
}

template <typename T>
HWY_INLINE void StorePartial(FloatTag d, FloatVec value, size_t count, T* to) {
  HWY_ALIGN T padded[kMaxLanes];
  StoreFloats(d, value, padded);
  std::memcpy(static_cast<void*>(to), padded, count * sizeof(T));
}

// to[i] = from[i], rounded where To is narrower.
template <typename From, typename To>
HWY_INLINE void ConvertRow(FloatTag d, const From* from, size_t count, To* to) {
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) StoreFloats(d, LoadFloats(d, from + i), to + i);
  if (i < count) StorePartial(d, LoadPartial(d, from + i, count - i), count - i, to + i);
}

// sum[i] = a[i] + b[i]; sum may be a or b.
template <typename T>
HWY_INLINE void AddRow(FloatTag d, const float* a, const T* b, size_t count, float* sum) {
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreFloats(d, hn::Add(LoadFloats(d, a + i), LoadFloats(d, b + i)), sum + i);
  }
  if (i < count) {
    const FloatVec left = LoadPartial(d, a + i, count - i);
    const FloatVec right = LoadPartial(d, b + i, count - i);
    StorePartial(d, hn::Add(left, right), count - i, sum + i);
  }
}

// Element types known at run time only. `offset` counts elements.
inline HWY_NOINLINE void LoadRow(FloatTag d, DType dtype, const void* from, int64_t offset,
                                 size_t count, float* to) {
  switch (dtype) {
    case DType::kFloat32:
      return ConvertRow(d, static_cast<const float*>(from) + offset, count, to);
    case DType::kBFloat16:
      return ConvertRow(d, static_cast<const BFloat16*>(from) + offset, count, to);
    case DType::kFloat16:
      return ConvertRow(d, static_cast<const Float16*>(from) + offset, count, to);
  }
}

inline HWY_NOINLINE void StoreRow(FloatTag d, const float* from, size_t count, DType dtype,
                                  void* to, int64_t offset) {
  switch (dtype) {
    case DType::kFloat32:
      return ConvertRow(d, from, count, static_cast<float*>(to) + offset);
    case DType::kBFloat16:
      return ConvertRow(d, from, count, static_cast<BFloat16*>(to) + offset);
    case DType::kFloat16:
      return ConvertRow(d, from, count, static_cast<Float16*>(to) + offset);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#endif  // MUSTER_KERNELS_SIMD_INL_H_
