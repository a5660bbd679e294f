#include <cmath>
#include <limits>

#include "kernels/lse_merge.h"
#include "kernels/reference.h"

namespace muster {
namespace {

float Merged(const LseMergeParams& params, int64_t row, int64_t column) {
  const int64_t lse_index = row * params.lse_row_stride + column / params.head_dim;
  const double nothing = -std::numeric_limits<double>::infinity();
  double max = nothing;
  for (int32_t peer = 0; peer < params.world; ++peer) {
    max = std::fmax(max, params.lse[peer][lse_index]);
  }
  if (max == nothing) return 0.0f;
  double weighted = 0;
  double weights = 0;
  for (int32_t peer = 0; peer < params.world; ++peer) {
    const double lse = params.lse[peer][lse_index];
    if (lse == nothing) continue;
    const double weight = std::exp(lse - max);
    weights += weight;
    weighted += weight * LoadElement(params.activation, params.parts[peer],
                                     row * params.part_row_stride + column - params.part_column);
  }
  return static_cast<float>(weighted / weights);
}

}  // namespace

void LseMergeReference(const LseMergeParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = params.columns.begin; column < params.columns.end; ++column) {
      StoreElement(Merged(params, row, column), params.activation, params.out,
                   row * params.out_row_stride + column - params.columns.begin);
    }
  }
}

}  // namespace muster
