#ifndef MUSTER_WORKER_MODEL_ROPE_TABLE_H_
#define MUSTER_WORKER_MODEL_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include "worker/model/config.h"

namespace muster {

// Radians per position of each rotated pair: [head_dim / 2].
std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim);

// cos and sin of position * frequency: [positions, frequencies.size()] each.
void FillRopeTable(const std::vector<double>& frequencies, int64_t positions, float* cos,
                   float* sin);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_ROPE_TABLE_H_
