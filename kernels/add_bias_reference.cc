#include "kernels/add_bias.h"
#include "kernels/reference.h"

namespace muster {

void AddBiasReference(const AddBiasParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t i = 0; i < params.width; ++i) {
      const int64_t at = row * params.row_stride + i;
      const double sum = double{LoadElement(params.dtype, params.y, at)} + params.bias[i];
      StoreElement(static_cast<float>(sum), params.dtype, params.y, at);
    }
  }
}

}  // namespace muster
