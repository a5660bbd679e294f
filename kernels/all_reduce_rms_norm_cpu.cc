#include "kernels/all_reduce_rms_norm.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/all_reduce_rms_norm_cpu.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/reduce_ranks-inl.h"
#include "kernels/rms_norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// One piece of a row: elements [offset, offset + count) of the whole arrays.
struct Piece {
  int64_t offset;
  size_t count;
};

HWY_INLINE Piece PieceOf(const AllReduceRmsNormParams& params, int64_t row, size_t begin) {
  const size_t left = static_cast<size_t>(params.hidden) - begin;
  return {row * params.hidden + static_cast<int64_t>(begin), HWY_MIN(kNormChunk, left)};
}

HWY_INLINE void AddResidual(FloatTag d, const AllReduceRmsNormParams& params, Piece piece,
                            float* sum) {
  const void* residual = params.residual_in;
  switch (params.residual_dtype) {
    case DType::kFloat32:
      return AddRow(d, sum, static_cast<const float*>(residual) + piece.offset, piece.count, sum);
    case DType::kBFloat16:
      return AddRow(d, sum, static_cast<const BFloat16*>(residual) + piece.offset, piece.count,
                    sum);
    case DType::kFloat16:
      return AddRow(d, sum, static_cast<const Float16*>(residual) + piece.offset, piece.count, sum);
  }
}

// sum = what residual_out becomes: the ranks' sum, plus the residual, rounded to its type.
HWY_NOINLINE void SumPiece(FloatTag d, const AllReduceRmsNormParams& params, Piece piece,
                           float* sum) {
  SumParts(d, params.dtype, params.parts, params.world, piece.offset, piece.count, sum);
  if (params.residual_in != nullptr) AddResidual(d, params, piece, sum);
  if (params.residual_dtype != DType::kFloat32) {
    HWY_ALIGN uint16_t rounded[kNormChunk];
    StoreRow(d, sum, piece.count, params.residual_dtype, rounded, 0);
    LoadRow(d, params.residual_dtype, rounded, 0, piece.count, sum);
  }
}

// The same piece a second time, from wherever it was kept.
HWY_INLINE const float* RecallPiece(FloatTag d, const AllReduceRmsNormParams& params, Piece piece,
                                    float* scratch) {
  if (params.norm_dtype == DType::kFloat32) {
    return static_cast<const float*>(params.norm_out) + piece.offset;
  }
  if (params.residual_out != nullptr) {
    LoadRow(d, params.residual_dtype, params.residual_out, piece.offset, piece.count, scratch);
  } else {
    SumPiece(d, params, piece, scratch);
  }
  return scratch;
}

HWY_INLINE bool AllFloat32(const AllReduceRmsNormParams& params) {
  return params.dtype == DType::kFloat32 && params.residual_dtype == DType::kFloat32 &&
         params.norm_dtype == DType::kFloat32;
}

// Four vectors of a float32 row.
struct Block {
  HWY_INLINE Block(FloatTag d, const float* from)
      : x0(LoadFloats(d, from)),
        x1(LoadFloats(d, from + hn::Lanes(d))),
        x2(LoadFloats(d, from + 2 * hn::Lanes(d))),
        x3(LoadFloats(d, from + 3 * hn::Lanes(d))) {}

  HWY_INLINE void Add(const Block& other) {
    x0 = hn::Add(x0, other.x0);
    x1 = hn::Add(x1, other.x1);
    x2 = hn::Add(x2, other.x2);
    x3 = hn::Add(x3, other.x3);
  }
  HWY_INLINE void Store(FloatTag d, float* to) const {
    StoreFloats(d, x0, to);
    StoreFloats(d, x1, to + hn::Lanes(d));
    StoreFloats(d, x2, to + 2 * hn::Lanes(d));
    StoreFloats(d, x3, to + 3 * hn::Lanes(d));
  }

  FloatVec x0, x1, x2, x3;
};

// Blocks ahead of the one at hand, whose lines are called for: other cores wrote them just now, and
// the processor does not foresee so many streams by itself. Past the end it does no harm.
inline constexpr int64_t kBlocksAhead = 4;

HWY_INLINE void PrefetchBlock(const float* block, int64_t elements) {
  constexpr int64_t kLine = 64 / sizeof(float);
  for (int64_t i = 0; i < elements; i += kLine) hwy::Prefetch(block + i);
}

// Sums the whole blocks of a float32 row in one pass over memory, and returns how many elements
// that is. The order of operations is that of SumPiece and SquareSum.
HWY_INLINE size_t SumBlocks(FloatTag d, const AllReduceRmsNormParams& params, int64_t row,
                            SquareSum& squares) {
  const int64_t block = 4 * static_cast<int64_t>(hn::Lanes(d));
  const int64_t end = (row + 1) * params.hidden;
  const float* residual_in = static_cast<const float*>(params.residual_in);
  float* residual_out = static_cast<float*>(params.residual_out);
  float* norm_out = static_cast<float*>(params.norm_out);
  int64_t at = row * params.hidden;
  for (; at + block <= end; at += block) {
    for (int32_t rank = 0; rank < params.world; ++rank) {
      PrefetchBlock(PartOf<float>(params.parts, rank, at) + kBlocksAhead * block, block);
    }
    Block sum(d, PartOf<float>(params.parts, 0, at));
    for (int32_t rank = 1; rank < params.world; ++rank) {
      sum.Add(Block(d, PartOf<float>(params.parts, rank, at)));
    }
    if (residual_in != nullptr) sum.Add(Block(d, residual_in + at));
    if (residual_out != nullptr) sum.Store(d, residual_out + at);
    sum.Store(d, norm_out + at);
    squares.AddFour(sum.x0, sum.x1, sum.x2, sum.x3);
  }
  return static_cast<size_t>(at - row * params.hidden);
}

// Sums the row, writes residual_out and returns the factor that normalises.
HWY_NOINLINE float SumRow(FloatTag d, const AllReduceRmsNormParams& params, int64_t row) {
  const size_t hidden = static_cast<size_t>(params.hidden);
  HWY_ALIGN float scratch[kNormChunk];
  SquareSum squares(d);
  size_t begin = 0;
  if (AllFloat32(params)) begin = SumBlocks(d, params, row, squares);
  for (size_t i = begin; i < hidden; i += kNormChunk) {
    const Piece piece = PieceOf(params, row, i);
    float* sum = params.norm_dtype == DType::kFloat32
                     ? static_cast<float*>(params.norm_out) + piece.offset
                     : scratch;
    SumPiece(d, params, piece, sum);
    if (params.residual_out != nullptr) {
      StoreRow(d, sum, piece.count, params.residual_dtype, params.residual_out, piece.offset);
    }
    squares.Add(d, sum, piece.count);
  }
  return InverseRms(squares.Total(d), params.hidden, params.eps);
}

void AllReduceRmsNorm(const AllReduceRmsNormParams& params, IndexRange rows) {
  const FloatTag d;
  const size_t hidden = static_cast<size_t>(params.hidden);
  HWY_ALIGN float scratch[kNormChunk];
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float scale = SumRow(d, params, row);
    for (size_t i = 0; i < hidden; i += kNormChunk) {
      const Piece piece = PieceOf(params, row, i);
      const float* sum = RecallPiece(d, params, piece, scratch);
      if (params.norm_dtype == DType::kFloat32) {
        float* norm = static_cast<float*>(params.norm_out) + piece.offset;
        ScaleRow(d, sum, params.weight + i, scale, piece.count, norm);
      } else {
        ScaleRow(d, sum, params.weight + i, scale, piece.count, scratch);
        StoreRow(d, scratch, piece.count, params.norm_dtype, params.norm_out, piece.offset);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(AllReduceRmsNorm);

void AllReduceRmsNormCpu(const AllReduceRmsNormParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(AllReduceRmsNorm)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
