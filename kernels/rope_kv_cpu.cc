#include "kernels/rope_kv.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope_kv_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/rms_norm-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// Rotates elements [i, i + count) of both halves of a head.
HWY_INLINE void RotatePiece(FloatTag d, float* low, float* high, const float* cos, const float* sin,
                            size_t count) {
  const bool whole = count == hn::Lanes(d);
  const FloatVec x = whole ? LoadFloats(d, low) : LoadPartial(d, low, count);
  const FloatVec y = whole ? LoadFloats(d, high) : LoadPartial(d, high, count);
  const FloatVec c = whole ? LoadFloats(d, cos) : LoadPartial(d, cos, count);
  const FloatVec s = whole ? LoadFloats(d, sin) : LoadPartial(d, sin, count);
  const FloatVec new_low = hn::NegMulAdd(y, s, hn::Mul(x, c));
  const FloatVec new_high = hn::MulAdd(x, s, hn::Mul(y, c));
  if (whole) {
    StoreFloats(d, new_low, low);
    StoreFloats(d, new_high, high);
  } else {
    StorePartial(d, new_low, count, low);
    StorePartial(d, new_high, count, high);
  }
}

HWY_INLINE void RotateHead(FloatTag d, float* head, const float* cos, const float* sin,
                           size_t half) {
  for (size_t i = 0; i < half; i += hn::Lanes(d)) {
    const size_t count = HWY_MIN(hn::Lanes(d), half - i);
    RotatePiece(d, head + i, head + half + i, cos + i, sin + i, count);
  }
}

HWY_INLINE void WriteToCache(FloatTag d, const RopeKvParams& params, const float* keys,
                             int64_t row) {
  const KvLayout& layout = params.layout;
  const int64_t block_number = params.positions[row] / layout.block_size;
  if (block_number % params.ownership.size != params.ownership.rank) return;
  std::byte* block =
      KvBlock(*params.kv, layout, params.row_sequences[row], block_number / params.ownership.size);
  if (block == nullptr) return;
  const int64_t head_dim = layout.head_dim;
  const int64_t to = params.positions[row] % layout.block_size * head_dim;
  const float* values = keys + layout.kv_heads * head_dim;
  for (int32_t head = 0; head < layout.kv_heads; ++head) {
    std::byte* key_page = block + KvPageOffset(layout, params.layer, KvPart::kKey, head);
    std::byte* value_page = block + KvPageOffset(layout, params.layer, KvPart::kValue, head);
    const size_t count = static_cast<size_t>(head_dim);
    StoreRow(d, keys + head * head_dim, count, layout.dtype, key_page, to);
    StoreRow(d, values + head * head_dim, count, layout.dtype, value_page, to);
  }
}

void RopeKv(const RopeKvParams& params, IndexRange rows) {
  const FloatTag d;
  const int64_t head_dim = params.layout.head_dim;
  const int64_t half = head_dim / 2;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    if (params.row_sequences[row] < 0) continue;
    const float* cos = params.cos + params.positions[row] * half;
    const float* sin = params.sin + params.positions[row] * half;
    float* qkv = static_cast<float*>(params.qkv) + row * params.row_stride;
    for (int64_t head = 0; head < params.heads + params.layout.kv_heads; ++head) {
      float* x = qkv + head * head_dim;
      const float* norm = head < params.heads ? params.q_norm : params.k_norm;
      if (norm != nullptr) NormalizeRow(d, x, norm, params.norm_eps, head_dim, x);
      RotateHead(d, x, cos, sin, static_cast<size_t>(half));
    }
    WriteToCache(d, params, qkv + params.heads * head_dim, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(RopeKv);

void RopeKvCpu(const RopeKvParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(RopeKv)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
