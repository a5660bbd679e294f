#include "kernels/add_bias.h"

namespace muster {

void AddBiasReference(const AddBiasParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    float* y = params.y + row * params.row_stride;
    for (int64_t i = 0; i < params.width; ++i) {
      y[i] = static_cast<float>(double{y[i]} + params.bias[i]);
    }
  }
}

}  // namespace muster
