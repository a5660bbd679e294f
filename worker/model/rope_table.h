#ifndef MUSTER_WORKER_MODEL_ROPE_TABLE_H_
#define MUSTER_WORKER_MODEL_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include "worker/model/model_config.h"

namespace muster {

// Radians per position of each rotated pair: [head_dim / 2]. With f = theta^(-2i / head_dim) for
// pair i:
//   kDefault  f (Su et al., 2021)
//   kLinear   f / factor (Chen et al., 2023)
//   kLlama3   f where the wavelength is below original_max_positions / high_freq_factor, f / factor
//             where it is above original_max_positions / low_freq_factor, blended between (Dubey et
//             al., 2024)
//   kYarn     f for pairs that turn at least beta_fast times over original_max_positions,
//             f / factor for those that turn at most beta_slow times, a linear ramp over the pairs
//             between, whose ends are whole pairs where `truncate` (Peng et al., 2023)
//   kDynamic  theta grows with `length`, the tokens of the text so far: by
//             (factor * length / original_max_positions - factor + 1)^(head_dim / (head_dim - 2)),
//             and not at all up to original_max_positions (bloc97, 2023)
// `length` counts for kDynamic alone.
std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim, int64_t length = 0);

// cos and sin of position * frequency, times the attention factor: [positions, head_dim / 2] each.
//
// Under kDynamic the row of position p has the frequencies of a text of p + 1 tokens, so that what
// is cached of a token depends on its position alone, never on how the text was cut into steps.
// That is what transformers computes for a text whose first original_max_positions tokens come in
// any pieces and the others one by one. A longer prompt in one piece it rotates by the frequencies
// of the whole prompt instead, which would make the cache depend on the pieces.
void FillRopeTable(const RopeConfig& rope, int head_dim, int64_t positions, float* cos, float* sin);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_ROPE_TABLE_H_
