#include "worker/model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace muster {
namespace {

// Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
double Llama3Frequency(const RopeConfig& rope, double frequency) {
  const double turns = rope.original_max_positions * frequency / (2 * M_PI);
  const double kept = std::clamp(
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
  return (1 - kept) * frequency / rope.factor + kept * frequency;
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim) {
  std::vector<double> frequencies;
  for (int i = 0; i < head_dim; i += 2) {
    const double frequency = std::pow(rope.theta, -static_cast<double>(i) / head_dim);
    frequencies.push_back(rope.type == RopeConfig::Type::kLlama3 ? Llama3Frequency(rope, frequency)
                                                                 : frequency);
  }
  return frequencies;
}

void FillRopeTable(const std::vector<double>& frequencies, int64_t positions, float* cos,
                   float* sin) {
  for (int64_t position = 0; position < positions; ++position) {
    for (double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      *cos++ = static_cast<float>(std::cos(angle));
      *sin++ = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace muster
