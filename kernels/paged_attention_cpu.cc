#include "kernels/paged_attention.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/paged_attention_cpu.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

// The query rows and heads of one tile. They share a sequence and a KV head.
struct TilePlace {
  IndexRange rows;
  IndexRange heads;
  int32_t sequence;
  int32_t kv_head;
};

// From the first position that one of the rows attends to, to the last.
HWY_INLINE IndexRange PositionsOf(const PagedAttentionParams& params, IndexRange rows) {
  IndexRange positions = {params.positions[rows.begin], 0};
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t position = params.positions[row];
    positions.begin = HWY_MIN(positions.begin, WindowStart(params, position));
    positions.end = HWY_MAX(positions.end, position + 1);
  }
  return positions;
}

HWY_INLINE void PrefetchPage(const std::byte* page, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) hwy::Prefetch(page + i);
}

// Attends the tile's queries to every local block that holds one of `positions`.
template <typename T>
HWY_INLINE void AttendBlocks(const PagedAttentionParams& params, const TilePlace& place,
                             IndexRange positions, QueryTile& queries) {
  const KvLayout& layout = params.layout;
  const KvOwnership& owned = params.ownership;
  const int64_t key_offset = KvPageOffset(layout, params.layer, KvPart::kKey, place.kv_head);
  const int64_t value_offset = KvPageOffset(layout, params.layer, KvPart::kValue, place.kv_head);
  const size_t page_bytes = sizeof(T) * layout.block_size * layout.head_dim;
  KeyTile keys;
  const int64_t first_block = positions.begin / layout.block_size;
  const int64_t first_index = (first_block - owned.rank + owned.size - 1) / owned.size;
  for (int64_t index = first_index;; ++index) {
    const int64_t block_start = (index * owned.size + owned.rank) * layout.block_size;
    if (block_start >= positions.end) return;
    const std::byte* block = KvBlock(*params.kv, layout, place.sequence, index);
    if (block == nullptr) continue;
    const std::byte* next = KvBlock(*params.kv, layout, place.sequence, index + 1);
    if (next != nullptr) {
      PrefetchPage(next + key_offset, page_bytes);
      PrefetchPage(next + value_offset, page_bytes);
    }
    const T* key_page = reinterpret_cast<const T*>(block + key_offset);
    const T* value_page = reinterpret_cast<const T*>(block + value_offset);
    const int64_t filled = HWY_MIN(int64_t{layout.block_size}, positions.end - block_start);
    for (int64_t slot = 0; slot < filled; slot += kKeyTile) {
      const int64_t element = slot * layout.head_dim;
      const size_t count = static_cast<size_t>(HWY_MIN(int64_t{kKeyTile}, filled - slot));
      LoadKeyTile(key_page + element, value_page + element, count, queries, keys);
      AttendTile(queries, keys, block_start + slot);
    }
  }
}

HWY_NOINLINE void AttendPlace(const PagedAttentionParams& params, const TilePlace& place) {
  const int64_t head_dim = params.layout.head_dim;
  QueryTile queries;
  StartQueries(queries, static_cast<size_t>(head_dim));
  for (int64_t row = place.rows.begin; row < place.rows.end; ++row) {
    for (int64_t head = place.heads.begin; head < place.heads.end; ++head) {
      const int64_t position = params.positions[row];
      AddQuery(queries,
               static_cast<const float*>(params.q) + row * params.q_row_stride + head * head_dim,
               params.scale, {WindowStart(params, position), position + 1});
    }
  }
  const IndexRange positions = PositionsOf(params, place.rows);
  switch (params.layout.dtype) {
    case DType::kFloat32:
      AttendBlocks<float>(params, place, positions, queries);
      break;
    case DType::kBFloat16:
      AttendBlocks<BFloat16>(params, place, positions, queries);
      break;
    case DType::kFloat16:
      AttendBlocks<Float16>(params, place, positions, queries);
      break;
  }
  size_t query = 0;
  for (int64_t row = place.rows.begin; row < place.rows.end; ++row) {
    for (int64_t head = place.heads.begin; head < place.heads.end; ++head) {
      FinishQuery(queries, query++,
                  static_cast<float*>(params.out) + row * params.out_row_stride + head * head_dim,
                  params.lse + row * params.lse_row_stride + head);
    }
  }
}

HWY_INLINE void ClearRow(const PagedAttentionParams& params, int64_t row, IndexRange heads) {
  const int64_t head_dim = params.layout.head_dim;
  float* out =
      static_cast<float*>(params.out) + row * params.out_row_stride + heads.begin * head_dim;
  std::memset(out, 0, static_cast<size_t>((heads.end - heads.begin) * head_dim) * sizeof(float));
  float* lse = params.lse + row * params.lse_row_stride;
  for (int64_t head = heads.begin; head < heads.end; ++head) lse[head] = kNoScore;
}

// Rows of one sequence, under the heads of one KV head, tile by tile.
HWY_INLINE void AttendRun(const PagedAttentionParams& params, TilePlace place) {
  const IndexRange rows = place.rows;
  const int64_t heads = place.heads.end - place.heads.begin;
  const int64_t step = HWY_MAX(int64_t{1}, int64_t{kQueryTile} / heads);
  for (int64_t row = rows.begin; row < rows.end; row += step) {
    place.rows = {row, HWY_MIN(row + step, rows.end)};
    AttendPlace(params, place);
  }
}

void PagedAttention(const PagedAttentionParams& params, IndexRange rows, IndexRange heads) {
  const int64_t group = params.heads / params.layout.kv_heads;
  for (int64_t row = rows.begin; row < rows.end;) {
    const int32_t sequence = params.row_sequences[row];
    if (sequence < 0) {
      ClearRow(params, row++, heads);
      continue;
    }
    int64_t end = row + 1;
    while (end < rows.end && params.row_sequences[end] == sequence) ++end;
    for (int64_t head = heads.begin; head < heads.end;) {
      const int64_t kv_head = head / group;
      const int64_t head_end =
          HWY_MIN(HWY_MIN((kv_head + 1) * group, heads.end), head + int64_t{kQueryTile});
      AttendRun(params, {{row, end}, {head, head_end}, sequence, static_cast<int32_t>(kv_head)});
      head = head_end;
    }
    row = end;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(PagedAttention);

void PagedAttentionCpu(const PagedAttentionParams& params, IndexRange rows, IndexRange heads) {
  HWY_DYNAMIC_DISPATCH(PagedAttention)(params, rows, heads);
}

}  // namespace muster
#endif  // HWY_ONCE
