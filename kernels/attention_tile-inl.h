// Softmax attention of a tile of queries over a tile of keys, and the state kept between tiles.
#if defined(MUSTER_KERNELS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MUSTER_KERNELS_ATTENTION_TILE_INL_H_
#undef MUSTER_KERNELS_ATTENTION_TILE_INL_H_
#else
#define MUSTER_KERNELS_ATTENTION_TILE_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>

#include <cmath>
#include <limits>

#include "kernels/paged_attention.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

inline constexpr size_t kKeyTile = 16;    // keys of a tile; a multiple of the lanes
inline constexpr size_t kQueryTile = 32;  // queries of a tile, at most
inline constexpr size_t kGroup = 4;       // queries that share registers
inline constexpr float kNoScore = -std::numeric_limits<float>::infinity();

// Keys and values of one KV head, widened to float32.
struct KeyTile {
  size_t count;                                    // 1 to kKeyTile
  HWY_ALIGN float keys[kMaxHeadDim * kKeyTile];    // [head_dim, kKeyTile]: transposed
  HWY_ALIGN float values[kKeyTile * kMaxHeadDim];  // [kKeyTile, value_stride], zero-padded
};

// Queries of one sequence and KV head with their running softmax. After any number of tiles
//   maximum = max s;   sums (all lanes) = sum exp(s - maximum);   outs = sum exp(s - maximum) * v
struct QueryTile {
  size_t head_dim;
  size_t value_stride;                               // head_dim rounded up to whole vectors
  size_t count;                                      // queries, 1 to kQueryTile
  IndexRange wanted[kQueryTile];                     // positions that the query attends to
  HWY_ALIGN float scaled[kQueryTile * kMaxHeadDim];  // [groups, head_dim, kGroup]: scale * q
  float maximum[kQueryTile];
  HWY_ALIGN float sums[kQueryTile * kKeyTile];     // [queries, lanes]
  HWY_ALIGN float outs[kQueryTile * kMaxHeadDim];  // [queries, value_stride]

  // For the tile of keys at hand:
  IndexRange seen[kQueryTile];                    // keys of the tile that the query attends to
  float decay[kQueryTile];                        // exp(maximum before - maximum after)
  HWY_ALIGN float scores[kQueryTile * kKeyTile];  // then exp(score - maximum)
};

HWY_INLINE void StartQueries(QueryTile& tile, size_t head_dim) {
  const FloatTag d;
  tile.head_dim = head_dim;
  tile.value_stride = (head_dim + hn::Lanes(d) - 1) / hn::Lanes(d) * hn::Lanes(d);
  tile.count = 0;
}

inline HWY_NOINLINE void AddQuery(QueryTile& tile, const float* q, float scale, IndexRange wanted) {
  const size_t query = tile.count++;
  tile.wanted[query] = wanted;
  tile.maximum[query] = kNoScore;
  float* scaled = tile.scaled + query / kGroup * kGroup * tile.head_dim + query % kGroup;
  for (size_t i = 0; i < tile.head_dim; ++i) scaled[i * kGroup] = scale * q[i];
  std::memset(tile.sums + query * kKeyTile, 0, kKeyTile * sizeof(float));
  std::memset(tile.outs + query * tile.value_stride, 0, tile.value_stride * sizeof(float));
}

// Writes the query's normalised output and LSE. A query that saw no key gets 0 and -infinity.
inline HWY_NOINLINE void FinishQuery(const QueryTile& tile, size_t query, float* out, float* lse) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d);
  const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, tile.sums + query * kKeyTile)));
  const bool none = sum == 0.0f && tile.maximum[query] == kNoScore;
  const FloatVec scale = hn::Set(d, none ? 0.0f : 1.0f / sum);
  const float* from = tile.outs + query * tile.value_stride;
  for (size_t i = 0; i < tile.head_dim; i += lanes) {
    const FloatVec value = hn::Mul(hn::Load(d, from + i), scale);
    const size_t left = tile.head_dim - i;
    if (left >= lanes) {
      StoreFloats(d, value, out + i);
    } else {
      StorePartial(d, value, left, out + i);
    }
  }
  *lse = none ? kNoScore : tile.maximum[query] + std::log(sum);
}

// keys[i][key] = page[key][i]. Lanes beyond the last key repeat the first: nobody looks at them.
template <typename T>
HWY_INLINE void TransposeKeys(const T* page, size_t head_dim, KeyTile& tile) {
  for (size_t key = 0; key < kKeyTile; ++key) {
    const T* from = page + (key < tile.count ? key : 0) * head_dim;
    for (size_t i = 0; i < head_dim; ++i) {
      tile.keys[i * kKeyTile + key] = static_cast<float>(from[i]);
    }
  }
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
// Pairs of bfloat16 are gathered as 32-bit words.
HWY_INLINE void TransposeKeys(const BFloat16* page, size_t head_dim, KeyTile& tile) {
  if (head_dim % 2 != 0) return TransposeKeys<BFloat16>(page, head_dim, tile);
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di32;
  const int32_t key_bytes = static_cast<int32_t>(head_dim * sizeof(BFloat16));
  for (size_t key = 0; key < kKeyTile; key += hn::Lanes(d)) {
    const auto number = hn::Iota(di32, static_cast<int32_t>(key));
    const auto valid = hn::Lt(number, hn::Set(di32, static_cast<int32_t>(tile.count)));
    const auto offsets = hn::IfThenElseZero(valid, hn::Mul(number, hn::Set(di32, key_bytes)));
    for (size_t i = 0; i < head_dim; i += 2) {
      const auto words =
          hn::GatherOffset(di32, reinterpret_cast<const int32_t*>(page + i), offsets);
      const auto odd = hn::And(words, hn::Set(di32, static_cast<int32_t>(0xFFFF0000u)));
      hn::Store(hn::BitCast(d, hn::ShiftLeft<16>(words)), d, tile.keys + i * kKeyTile + key);
      hn::Store(hn::BitCast(d, odd), d, tile.keys + (i + 1) * kKeyTile + key);
    }
  }
}
#endif

template <typename T>
HWY_NOINLINE void LoadKeyTile(const T* key_page, const T* value_page, size_t count,
                              const QueryTile& queries, KeyTile& tile) {
  const FloatTag d;
  const size_t head_dim = queries.head_dim;
  tile.count = count;
  TransposeKeys(key_page, head_dim, tile);
  for (size_t key = 0; key < count; ++key) {
    const T* from = value_page + key * head_dim;
    float* to = tile.values + key * queries.value_stride;
    size_t i = 0;
    for (; i + hn::Lanes(d) <= head_dim; i += hn::Lanes(d)) {
      hn::Store(LoadFloats(d, from + i), d, to + i);
    }
    if (i < head_dim) hn::Store(LoadPartial(d, from + i, head_dim - i), d, to + i);
  }
}

// scores of queries [first, first + kQueries), first a multiple of kGroup. Even and odd elements
// of a dot product go to two accumulators, to hide the latency of a lone query.
template <size_t kQueries>
HWY_NOINLINE void ScoreQueries(QueryTile& queries, size_t first, const KeyTile& keys) {
  const FloatTag d;
  const float* scaled = queries.scaled + first * queries.head_dim;
  for (size_t key = 0; key < keys.count; key += hn::Lanes(d)) {
    FloatVec even[kQueries];
    FloatVec odd[kQueries];
    for (size_t q = 0; q < kQueries; ++q) even[q] = odd[q] = hn::Zero(d);
    size_t i = 0;
    for (; i + 2 <= queries.head_dim; i += 2) {
      const FloatVec even_keys = hn::Load(d, keys.keys + i * kKeyTile + key);
      const FloatVec odd_keys = hn::Load(d, keys.keys + (i + 1) * kKeyTile + key);
      for (size_t q = 0; q < kQueries; ++q) {
        even[q] = hn::MulAdd(hn::Set(d, scaled[i * kGroup + q]), even_keys, even[q]);
        odd[q] = hn::MulAdd(hn::Set(d, scaled[(i + 1) * kGroup + q]), odd_keys, odd[q]);
      }
    }
    if (i < queries.head_dim) {
      const FloatVec even_keys = hn::Load(d, keys.keys + i * kKeyTile + key);
      for (size_t q = 0; q < kQueries; ++q) {
        even[q] = hn::MulAdd(hn::Set(d, scaled[i * kGroup + q]), even_keys, even[q]);
      }
    }
    for (size_t q = 0; q < kQueries; ++q) {
      hn::Store(hn::Add(even[q], odd[q]), d, queries.scores + (first + q) * kKeyTile + key);
    }
  }
}

// Highway's Exp takes a NaN for 0, which would hide it.
HWY_INLINE FloatVec ExpOrNan(FloatTag d, FloatVec x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

// The lanes of [begin, end) in the vector that starts at key `at`.
HWY_INLINE hn::Mask<FloatTag> LanesIn(FloatTag d, IndexRange range, int64_t at) {
  const auto before_end = hn::FirstN(d, static_cast<size_t>(range.end - at));
  if (range.begin <= at) return before_end;
  return hn::AndNot(hn::FirstN(d, static_cast<size_t>(range.begin - at)), before_end);
}

// Turns the scores that a query sees into weights, and its running softmax to the new maximum.
inline HWY_NOINLINE void WeighScores(QueryTile& queries, size_t query) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const IndexRange seen = queries.seen[query];
  const int64_t first = seen.begin / lanes * lanes;
  float* scores = queries.scores + query * kKeyTile;
  FloatVec maximum = hn::Set(d, queries.maximum[query]);
  for (int64_t key = first; key < seen.end; key += lanes) {
    const FloatVec score =
        hn::IfThenElse(LanesIn(d, seen, key), hn::Load(d, scores + key), hn::Set(d, kNoScore));
    maximum = hn::Max(maximum, score);
  }
  const float new_maximum = hn::GetLane(hn::MaxOfLanes(d, maximum));
  const float old_maximum = queries.maximum[query];
  const float decay = new_maximum == old_maximum
                          ? 1.0f
                          : hn::GetLane(ExpOrNan(d, hn::Set(d, old_maximum - new_maximum)));
  FloatVec sums = hn::Mul(hn::Load(d, queries.sums + query * kKeyTile), hn::Set(d, decay));
  for (int64_t key = first; key < seen.end; key += lanes) {
    const FloatVec score = hn::Sub(hn::Load(d, scores + key), hn::Set(d, new_maximum));
    const FloatVec weight = hn::IfThenElseZero(LanesIn(d, seen, key), ExpOrNan(d, score));
    sums = hn::Add(sums, weight);
    hn::Store(weight, d, scores + key);
  }
  hn::Store(sums, d, queries.sums + query * kKeyTile);
  queries.maximum[query] = new_maximum;
  queries.decay[query] = decay;
}

// outs[q] = outs[q] * decay[q] + the weighted values of keys [begin, end), in order.
template <size_t kQueries, size_t kVectors>
HWY_INLINE void AddValues(QueryTile& queries, size_t first, const KeyTile& keys, IndexRange range,
                          const float* decay, size_t element) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d);
  const size_t stride = queries.value_stride;
  float* outs = queries.outs + first * stride + element;
  const float* weights = queries.scores + first * kKeyTile;
  FloatVec sums[kQueries][kVectors];
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t v = 0; v < kVectors; ++v) {
      sums[q][v] = hn::Mul(hn::Load(d, outs + q * stride + v * lanes), hn::Set(d, decay[q]));
    }
  }
  for (int64_t key = range.begin; key < range.end; ++key) {
    FloatVec values[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      values[v] = hn::Load(d, keys.values + key * stride + element + v * lanes);
    }
    for (size_t q = 0; q < kQueries; ++q) {
      const FloatVec weight = hn::Set(d, weights[q * kKeyTile + key]);
      for (size_t v = 0; v < kVectors; ++v) {
        sums[q][v] = hn::MulAdd(weight, values[v], sums[q][v]);
      }
    }
  }
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t v = 0; v < kVectors; ++v) {
      hn::Store(sums[q][v], d, outs + q * stride + v * lanes);
    }
  }
}

template <size_t kQueries>
HWY_NOINLINE void AddAllValues(QueryTile& queries, size_t first, const KeyTile& keys,
                               IndexRange range, const float* decay) {
  const size_t lanes = hn::Lanes(FloatTag());
  size_t i = 0;
  for (; i + 2 * lanes <= queries.value_stride; i += 2 * lanes) {
    AddValues<kQueries, 2>(queries, first, keys, range, decay, i);
  }
  if (i < queries.value_stride) AddValues<kQueries, 1>(queries, first, keys, range, decay, i);
}

// One group of queries over one tile of keys. The group goes together over the keys that all its
// queries see; the rest, next to the diagonal and to the edge of the window, each alone: a masked
// value is never multiplied, and the keys of a query come in order whatever its neighbours see.
template <size_t kQueries>
HWY_INLINE void AttendGroup(QueryTile& queries, size_t first, const KeyTile& keys) {
  IndexRange shared = {0, static_cast<int64_t>(keys.count)};
  bool any = false;
  for (size_t q = first; q < first + kQueries; ++q) {
    const IndexRange seen = queries.seen[q];
    any |= seen.begin < seen.end;
    shared = {HWY_MAX(shared.begin, seen.begin), HWY_MIN(shared.end, seen.end)};
  }
  if (!any) return;
  shared.end = HWY_MAX(shared.begin, shared.end);

  ScoreQueries<kQueries>(queries, first, keys);
  for (size_t q = first; q < first + kQueries; ++q) {
    const IndexRange seen = queries.seen[q];
    queries.decay[q] = 1.0f;
    if (seen.begin < seen.end) WeighScores(queries, q);
    const IndexRange before = {seen.begin, HWY_MIN(seen.end, shared.begin)};
    if (before.begin >= before.end) continue;
    AddAllValues<1>(queries, q, keys, before, queries.decay + q);
    queries.decay[q] = 1.0f;
  }
  AddAllValues<kQueries>(queries, first, keys, shared, queries.decay + first);
  for (size_t q = first; q < first + kQueries; ++q) {
    const float once = 1.0f;
    const IndexRange after = {HWY_MAX(queries.seen[q].begin, shared.end), queries.seen[q].end};
    if (after.begin < after.end) AddAllValues<1>(queries, q, keys, after, &once);
  }
}

// Works one tile of keys, the first at `position`, into the queries' running softmax.
inline HWY_NOINLINE void AttendTile(QueryTile& queries, const KeyTile& keys, int64_t position) {
  const int64_t count = static_cast<int64_t>(keys.count);
  for (size_t q = 0; q < queries.count; ++q) {
    const IndexRange wanted = queries.wanted[q];
    const int64_t end = HWY_MAX(int64_t{0}, HWY_MIN(wanted.end - position, count));
    queries.seen[q] = {HWY_MIN(HWY_MAX(int64_t{0}, wanted.begin - position), end), end};
  }
  size_t first = 0;
  for (; first + kGroup <= queries.count; first += kGroup) {
    AttendGroup<kGroup>(queries, first, keys);
  }
  switch (queries.count - first) {
    case 1:
      return AttendGroup<1>(queries, first, keys);
    case 2:
      return AttendGroup<2>(queries, first, keys);
    case 3:
      return AttendGroup<3>(queries, first, keys);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#endif  // MUSTER_KERNELS_ATTENTION_TILE_INL_H_
