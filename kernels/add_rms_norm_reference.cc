#include <cmath>

#include "kernels/add_rms_norm.h"
#include "kernels/reference.h"

namespace muster {
namespace {

// What residual_out holds at element `i`. Its order of operations is specified.
float Residual(const AddRmsNormParams& params, int64_t i) {
  float sum = LoadElement(params.activation, params.a, i);
  if (params.residual_in != nullptr) sum += LoadElement(params.activation, params.residual_in, i);
  float rounded = 0;
  StoreElement(sum, params.activation, &rounded, 0);
  return LoadElement(params.activation, &rounded, 0);
}

}  // namespace

void AddRmsNormReference(const AddRmsNormParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row * params.hidden;
    double square_sum = 0;
    for (int64_t i = offset; i < offset + params.hidden; ++i) {
      square_sum += double{Residual(params, i)} * Residual(params, i);
    }
    const double rms = std::sqrt(square_sum / static_cast<double>(params.hidden) + params.eps);
    for (int64_t i = offset; i < offset + params.hidden; ++i) {
      const float residual = Residual(params, i);  // before an output overwrites an operand
      const double norm = residual / rms * params.weight[i - offset];
      if (params.residual_out != nullptr) {
        StoreElement(residual, params.activation, params.residual_out, i);
      }
      StoreElement(static_cast<float>(norm), params.activation, params.out, i);
    }
  }
}

}  // namespace muster
