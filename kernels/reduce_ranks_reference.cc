#include "kernels/reduce_ranks.h"
#include "kernels/reference.h"

namespace muster {

// In float32 and rank order, unlike other references: the order is what is specified.
void ReduceRanksReference(const ReduceRanksParams& params, IndexRange elements) {
  for (int64_t i = elements.begin; i < elements.end; ++i) {
    float sum = LoadElement(params.dtype, params.parts[0], i);
    for (int32_t rank = 1; rank < params.world; ++rank) {
      sum += LoadElement(params.dtype, params.parts[rank], i);
    }
    StoreElement(sum, params.out_dtype, params.out, i);
  }
}

}  // namespace muster
