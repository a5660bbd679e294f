#include <cmath>
#include <limits>

#include "kernels/paged_attention.h"
#include "kernels/reference.h"

namespace muster {
namespace {

// The local keys and values of one sequence and KV head, in order of position.
class LocalKeys {
 public:
  LocalKeys(const PagedAttentionParams& params, int64_t row, int64_t head)
      : params_(params),
        sequence_(params.row_sequences[row]),
        kv_head_(static_cast<int32_t>(head / (params.heads / params.layout.kv_heads))) {}

  bool Holds(int64_t position) const { return Block(position) != nullptr; }

  double Element(KvPart part, int64_t position, int32_t i) const {
    const std::byte* page =
        Block(position) + KvPageOffset(params_.layout, params_.layer, part, kv_head_);
    const int64_t slot = position % params_.layout.block_size;
    return LoadElement(params_.layout.dtype, page, slot * params_.layout.head_dim + i);
  }

 private:
  const std::byte* Block(int64_t position) const {
    const int64_t number = position / params_.layout.block_size;
    if (number % params_.ownership.size != params_.ownership.rank) return nullptr;
    return KvBlock(*params_.kv, params_.layout, sequence_, number / params_.ownership.size);
  }

  const PagedAttentionParams& params_;
  const int32_t sequence_;
  const int32_t kv_head_;
};

double Score(const PagedAttentionParams& params, const LocalKeys& keys, int64_t q,
             int64_t position) {
  double dot = 0;
  for (int32_t i = 0; i < params.layout.head_dim; ++i) {
    dot += double{LoadElement(params.activation, params.q, q + i)} *
           keys.Element(KvPart::kKey, position, i);
  }
  return dot * params.scale;
}

void Attend(const PagedAttentionParams& params, int64_t row, int64_t head) {
  const int32_t head_dim = params.layout.head_dim;
  const int64_t q = row * params.q_row_stride + head * head_dim;
  const int64_t out = row * params.out_row_stride + head * head_dim;
  const auto store = [&](int32_t i, double value) {
    StoreElement(static_cast<float>(value), params.activation, params.out, out + i);
  };
  float* lse = params.lse + row * params.lse_row_stride + head;
  for (int32_t i = 0; i < head_dim; ++i) store(i, 0);
  *lse = -std::numeric_limits<float>::infinity();
  if (params.row_sequences[row] < 0) return;

  const LocalKeys keys(params, row, head);
  const int64_t first = WindowStart(params, params.positions[row]);
  double max = -std::numeric_limits<double>::infinity();
  bool any = false;
  for (int64_t position = first; position <= params.positions[row]; ++position) {
    if (!keys.Holds(position)) continue;
    any = true;
    max = std::fmax(max, Score(params, keys, q, position));
  }
  if (!any) return;

  double sum = 0;
  double weighted[kMaxHeadDim] = {};
  for (int64_t position = first; position <= params.positions[row]; ++position) {
    if (!keys.Holds(position)) continue;
    const double weight = std::exp(Score(params, keys, q, position) - max);
    sum += weight;
    for (int32_t i = 0; i < head_dim; ++i) {
      weighted[i] += weight * keys.Element(KvPart::kValue, position, i);
    }
  }
  for (int32_t i = 0; i < head_dim; ++i) store(i, weighted[i] / sum);
  *lse = static_cast<float>(max + std::log(sum));
}

}  // namespace

void PagedAttentionReference(const PagedAttentionParams& params, IndexRange rows,
                             IndexRange heads) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t head = heads.begin; head < heads.end; ++head) Attend(params, row, head);
  }
}

}  // namespace muster
