#include <cmath>

#include "kernels/reference.h"
#include "kernels/swiglu.h"

namespace muster {

void SwiGluReference(const SwiGluParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t first = row * params.row_stride;
    for (int64_t i = 0; i < params.width; ++i) {
      const double gate = LoadElement(params.activation, params.gate_up, first + i);
      const double up = LoadElement(params.activation, params.gate_up, first + params.width + i);
      StoreElement(static_cast<float>(gate / (1.0 + std::exp(-gate)) * up), params.activation,
                   params.out, row * params.out_row_stride + i);
    }
  }
}

}  // namespace muster
