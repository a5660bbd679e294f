#include <cmath>
#include <vector>

#include "kernels/reference.h"
#include "kernels/rope_kv.h"

namespace muster {
namespace {

void Normalize(double* x, const float* weight, float eps, int32_t head_dim) {
  double square_sum = 0;
  for (int32_t i = 0; i < head_dim; ++i) square_sum += x[i] * x[i];
  const double rms = std::sqrt(square_sum / head_dim + eps);
  for (int32_t i = 0; i < head_dim; ++i) x[i] = x[i] / rms * weight[i];
}

void Rotate(double* x, const float* cos, const float* sin, int32_t head_dim) {
  const int32_t half = head_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const double low = x[i];
    const double high = x[i + half];
    x[i] = low * cos[i] - high * sin[i];
    x[i + half] = high * cos[i] + low * sin[i];
  }
}

// `keys`: element of qkv.
void WriteToCache(const RopeKvParams& params, int64_t keys, int64_t row) {
  const KvLayout& layout = params.layout;
  const int64_t block_number = params.positions[row] / layout.block_size;
  if (block_number % params.ownership.size != params.ownership.rank) return;
  std::byte* block =
      KvBlock(*params.kv, layout, params.row_sequences[row], block_number / params.ownership.size);
  if (block == nullptr) return;
  const int64_t slot = params.positions[row] % layout.block_size;
  const int64_t values = keys + int64_t{layout.kv_heads} * layout.head_dim;
  for (int32_t head = 0; head < layout.kv_heads; ++head) {
    void* key_page = block + KvPageOffset(layout, params.layer, KvPart::kKey, head);
    void* value_page = block + KvPageOffset(layout, params.layer, KvPart::kValue, head);
    for (int32_t i = 0; i < layout.head_dim; ++i) {
      const int64_t from = int64_t{head} * layout.head_dim + i;
      const int64_t to = slot * layout.head_dim + i;
      const float key = LoadElement(params.activation, params.qkv, keys + from);
      const float value = LoadElement(params.activation, params.qkv, values + from);
      StoreElement(key, layout.dtype, key_page, to);
      StoreElement(value, layout.dtype, value_page, to);
    }
  }
}

}  // namespace

void RopeKvReference(const RopeKvParams& params, IndexRange rows) {
  const int32_t head_dim = params.layout.head_dim;
  std::vector<double> x(static_cast<size_t>(head_dim));
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    if (params.row_sequences[row] < 0) continue;
    const int64_t table = int64_t{params.positions[row]} * (head_dim / 2);
    const int64_t first = row * params.row_stride;
    for (int64_t head = 0; head < params.heads + params.layout.kv_heads; ++head) {
      const int64_t at = first + head * head_dim;
      for (int32_t i = 0; i < head_dim; ++i) {
        x[i] = LoadElement(params.activation, params.qkv, at + i);
      }
      const float* norm = head < params.heads ? params.q_norm : params.k_norm;
      if (norm != nullptr) Normalize(x.data(), norm, params.norm_eps, head_dim);
      Rotate(x.data(), params.cos + table, params.sin + table, head_dim);
      for (int32_t i = 0; i < head_dim; ++i) {
        StoreElement(static_cast<float>(x[i]), params.activation, params.qkv, at + i);
      }
    }
    WriteToCache(params, first + int64_t{params.heads} * head_dim, row);
  }
}

}  // namespace muster
