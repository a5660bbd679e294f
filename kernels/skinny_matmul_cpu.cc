#include "kernels/simd_targets.h"
#include "kernels/skinny_matmul.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/skinny_matmul_cpu.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <type_traits>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// The weights are read as so many streams side by side, each from one end to the other of its part
// of the columns: that is how memory gives most.
constexpr int64_t kStreams = 4;
// Bytes of each stream on their way at one time.
constexpr int64_t kAhead = 512;

// Terms of a dot product, by element type: what one step multiplies and adds. Every element of y
// takes the same steps in the same order, alone in its accumulator, however many rows and columns
// a tile has: that makes results independent of the batch.

// One vector of activations against one of weights, each widened to float32.
template <typename W>
struct Terms {
  using X = std::conditional_t<std::is_same_v<W, BFloat16>, BFloat16, float>;
  static HWY_INLINE size_t Step(FloatTag d) { return hn::Lanes(d); }

  struct Operand {
    FloatVec values;
  };
  template <typename T>
  static HWY_INLINE Operand Read(FloatTag d, const T* from) {
    return {LoadFloats(d, from)};
  }
  template <typename T>
  static HWY_INLINE Operand ReadPartial(FloatTag d, const T* from, size_t count) {
    return {LoadPartial(d, from, count)};
  }
  static HWY_INLINE FloatVec Accumulate(const Operand& x, const Operand& w, FloatVec sum) {
    return hn::MulAdd(x.values, w.values, sum);
  }
};

#if HWY_TARGET != HWY_SCALAR
// Two vectors of bfloat16 pairs: read as 32-bit words, their upper halves are floats when the
// lower are cleared, and their lower halves when shifted up. Cheaper than widening in order.
template <>
struct Terms<BFloat16> {
  using X = BFloat16;
  static HWY_INLINE size_t Step(FloatTag d) { return 2 * hn::Lanes(d); }

  struct Operand {
    FloatVec even;
    FloatVec odd;
  };
  static HWY_INLINE Operand Read(FloatTag d, const BFloat16* from) {
    const hn::Repartition<uint16_t, FloatTag> du16;
    const hn::RebindToUnsigned<FloatTag> du32;
    const auto words = hn::BitCast(du32, hn::LoadU(du16, &from->bits));
    return {hn::BitCast(d, hn::ShiftLeft<16>(words)),
            hn::BitCast(d, hn::And(words, hn::Set(du32, 0xFFFF0000u)))};
  }
  static HWY_INLINE Operand ReadPartial(FloatTag d, const BFloat16* from, size_t count) {
    HWY_ALIGN BFloat16 padded[2 * kMaxLanes];
    std::memset(static_cast<void*>(padded), 0, sizeof(padded));
    std::memcpy(static_cast<void*>(padded), from, count * sizeof(BFloat16));
    return Read(d, padded);
  }
  static HWY_INLINE FloatVec Accumulate(const Operand& x, const Operand& w, FloatVec sum) {
    return hn::MulAdd(x.odd, w.odd, hn::MulAdd(x.even, w.even, sum));
  }
};
#endif

// y of kRows rows and of kColumns columns that are `apart` from each other; x, w and y point at the
// tile's first.
template <typename W, size_t kRows, size_t kColumns>
HWY_NOINLINE void Tile(const SkinnyMatmulParams& params, const typename Terms<W>::X* x, const W* w,
                       int64_t apart, float* y) {
  using T = Terms<W>;
  const FloatTag d;
  const size_t step = T::Step(d);
  const size_t k = static_cast<size_t>(params.k);
  const int64_t w_apart = apart * params.weights_row_stride;
  FloatVec sums[kRows][kColumns];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kColumns; ++c) sums[r][c] = hn::Zero(d);
  }
  size_t i = 0;
  for (; i + step <= k; i += step) {
    typename T::Operand xs[kRows];
    for (size_t r = 0; r < kRows; ++r) xs[r] = T::Read(d, x + r * params.x_row_stride + i);
    for (size_t c = 0; c < kColumns; ++c) {
      const W* from = w + c * w_apart + i;
      hwy::Prefetch(from + kAhead / sizeof(W));
      const auto ws = T::Read(d, from);
      for (size_t r = 0; r < kRows; ++r) sums[r][c] = T::Accumulate(xs[r], ws, sums[r][c]);
    }
  }
  if (i < k) {
    for (size_t c = 0; c < kColumns; ++c) {
      const auto ws = T::ReadPartial(d, w + c * w_apart + i, k - i);
      for (size_t r = 0; r < kRows; ++r) {
        const auto xs = T::ReadPartial(d, x + r * params.x_row_stride + i, k - i);
        sums[r][c] = T::Accumulate(xs, ws, sums[r][c]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kColumns; ++c) {
      y[r * params.y_row_stride + c * apart] = hn::GetLane(hn::SumOfLanes(d, sums[r][c]));
    }
  }
}

// All rows of kColumns columns: the weights come from memory for the first rows, from the cache
// for the others.
template <typename W, size_t kColumns>
HWY_INLINE void Columns(const SkinnyMatmulParams& params, int64_t column, int64_t apart) {
  using X = typename Terms<W>::X;
  const W* w = static_cast<const W*>(params.weights) + column * params.weights_row_stride;
  for (int64_t row = 0; row < params.rows; row += 4) {
    const X* x = static_cast<const X*>(params.x) + row * params.x_row_stride;
    float* y = static_cast<float*>(params.y) + row * params.y_row_stride + column;
    switch (params.rows - row) {
      case 1:
        Tile<W, 1, kColumns>(params, x, w, apart, y);
        break;
      case 2:
        Tile<W, 2, kColumns>(params, x, w, apart, y);
        break;
      case 3:
        Tile<W, 3, kColumns>(params, x, w, apart, y);
        break;
      default:
        Tile<W, 4, kColumns>(params, x, w, apart, y);
        break;
    }
  }
}

template <typename W>
HWY_INLINE void MatmulTyped(const SkinnyMatmulParams& params, IndexRange columns) {
  const int64_t apart = (columns.end - columns.begin) / kStreams;
  for (int64_t i = 0; i < apart; ++i) Columns<W, kStreams>(params, columns.begin + i, apart);
  for (int64_t column = columns.begin + kStreams * apart; column < columns.end; ++column) {
    Columns<W, 1>(params, column, 0);
  }
}

void SkinnyMatmul(const SkinnyMatmulParams& params, IndexRange columns) {
  switch (params.dtype) {
    case DType::kFloat32:
      return MatmulTyped<float>(params, columns);
    case DType::kBFloat16:
      return MatmulTyped<BFloat16>(params, columns);
    case DType::kFloat16:
      return MatmulTyped<Float16>(params, columns);
  }
}

void RoundActivations(const RoundActivationsParams& params, IndexRange rows) {
  const FloatTag d;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    ConvertRow(d, params.x + row * params.x_row_stride, static_cast<size_t>(params.k),
               params.out + row * params.out_row_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(SkinnyMatmul);

void SkinnyMatmulCpu(const SkinnyMatmulParams& params, IndexRange columns) {
  HWY_DYNAMIC_DISPATCH(SkinnyMatmul)(params, columns);
}

HWY_EXPORT(RoundActivations);

void RoundActivationsCpu(const RoundActivationsParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(RoundActivations)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
