#include "kernels/embedding.h"
#include "kernels/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {

void Embedding(const EmbeddingParams& params, IndexRange rows) {
  const FloatTag d;
  const size_t hidden = static_cast<size_t>(params.hidden);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t id = params.ids[row];
    float* out = static_cast<float*>(params.out) + row * params.hidden;
    if (id < params.vocab_begin || id >= params.vocab_end) {
      std::memset(out, 0, hidden * sizeof(float));
    } else {
      const int64_t offset = (id - params.vocab_begin) * params.hidden;
      LoadRow(d, params.dtype, params.table, offset, hidden, out);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(Embedding);

void EmbeddingCpu(const EmbeddingParams& params, IndexRange rows) {
  HWY_DYNAMIC_DISPATCH(Embedding)(params, rows);
}

}  // namespace muster
#endif  // HWY_ONCE
