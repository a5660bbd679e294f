#include <cmath>

#include "kernels/swiglu.h"

namespace muster {

void SwiGluReference(const SwiGluParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* gate = params.gate_up + row * params.row_stride;
    const float* up = gate + params.width;
    float* out = params.out + row * params.out_row_stride;
    for (int64_t i = 0; i < params.width; ++i) {
      out[i] = static_cast<float>(gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i]);
    }
  }
}

}  // namespace muster
