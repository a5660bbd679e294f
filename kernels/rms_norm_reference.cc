#include <cmath>

#include "kernels/rms_norm.h"

namespace muster {

void RmsNormReference(const RmsNormParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = params.x + row * params.hidden;
    double square_sum = 0;
    for (int64_t i = 0; i < params.hidden; ++i) square_sum += double{x[i]} * x[i];
    const double rms = std::sqrt(square_sum / static_cast<double>(params.hidden) + params.eps);
    for (int64_t i = 0; i < params.hidden; ++i) {
      params.out[row * params.hidden + i] = static_cast<float>(x[i] / rms * params.weight[i]);
    }
  }
}

}  // namespace muster
