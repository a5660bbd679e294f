#include "kernels/embedding.h"
#include "kernels/reference.h"

namespace muster {

void EmbeddingReference(const EmbeddingParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t id = params.ids[row];
    const bool here = id >= params.vocab_begin && id < params.vocab_end;
    for (int64_t i = 0; i < params.hidden; ++i) {
      const int64_t element = (id - params.vocab_begin) * params.hidden + i;
      const float value = here ? LoadElement(params.dtype, params.table, element) : 0.0f;
      StoreElement(value, params.activation, params.out, row * params.hidden + i);
    }
  }
}

}  // namespace muster
