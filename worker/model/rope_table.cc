#include "worker/model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace muster {
namespace {

// Positions whose rotation is computed from that of the one before, until it is computed anew.
constexpr int64_t kRun = 64;

double Llama3Frequency(const RopeConfig& rope, double frequency) {
  const double turns = rope.original_max_positions * frequency / (2 * M_PI);
  const double kept = std::clamp(
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
  return (1 - kept) * frequency / rope.factor + kept * frequency;
}

// The pair, not whole, that turns `turns` times over the original context.
double PairThatTurns(const RopeConfig& rope, int head_dim, double turns) {
  return head_dim * std::log(rope.original_max_positions / (turns * 2 * M_PI)) /
         (2 * std::log(rope.theta));
}

double YarnFrequency(const RopeConfig& rope, int head_dim, int pair, double frequency) {
  double first = PairThatTurns(rope, head_dim, rope.beta_fast);
  double last = PairThatTurns(rope, head_dim, rope.beta_slow);
  if (rope.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, head_dim - 1.0);
  if (first == last) last += 0.001;
  const double stretched = std::clamp((pair - first) / (last - first), 0.0, 1.0);
  return stretched * frequency / rope.factor + (1 - stretched) * frequency;
}

double DynamicTheta(const RopeConfig& rope, int head_dim, int64_t length) {
  if (length <= rope.original_max_positions || head_dim == 2) return rope.theta;
  const double ratio = static_cast<double>(length) / rope.original_max_positions;
  return rope.theta * std::pow(rope.factor * ratio - rope.factor + 1, head_dim / (head_dim - 2.0));
}

// One row each: cos and sin of the angles, times `scale`.
void FillRow(const std::vector<double>& frequencies, int64_t position, double scale, float* cos,
             float* sin) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cos[i] = static_cast<float>(scale * std::cos(angle));
    sin[i] = static_cast<float>(scale * std::sin(angle));
  }
}

// Turns one pair from position to position over a run of rows.
void FillRun(double frequency, int64_t begin, int64_t end, double scale, int64_t stride, float* cos,
             float* sin) {
  const double turn_cos = std::cos(frequency);
  const double turn_sin = std::sin(frequency);
  const double angle = static_cast<double>(begin) * frequency;
  double c = scale * std::cos(angle);
  double s = scale * std::sin(angle);
  for (int64_t position = begin; position < end; ++position) {
    cos[position * stride] = static_cast<float>(c);
    sin[position * stride] = static_cast<float>(s);
    const double next = c * turn_cos - s * turn_sin;
    s = s * turn_cos + c * turn_sin;
    c = next;
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim, int64_t length) {
  using Type = RopeConfig::Type;
  const double theta =
      rope.type == Type::kDynamic ? DynamicTheta(rope, head_dim, length) : rope.theta;
  std::vector<double> frequencies;
  for (int pair = 0; pair < head_dim / 2; ++pair) {
    double frequency = std::pow(theta, -2.0 * pair / head_dim);
    if (rope.type == Type::kLinear) frequency /= rope.factor;
    if (rope.type == Type::kLlama3) frequency = Llama3Frequency(rope, frequency);
    if (rope.type == Type::kYarn) frequency = YarnFrequency(rope, head_dim, pair, frequency);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

void FillRopeTable(const RopeConfig& rope, int head_dim, int64_t positions, float* cos,
                   float* sin) {
  const std::vector<double> frequencies = RopeFrequencies(rope, head_dim);
  const int64_t stride = head_dim / 2;
  const int64_t fixed = rope.type == RopeConfig::Type::kDynamic
                            ? std::min<int64_t>(positions, rope.original_max_positions)
                            : positions;
  for (int64_t begin = 0; begin < fixed; begin += kRun) {
    const int64_t end = std::min(begin + kRun, fixed);
    for (int64_t i = 0; i < stride; ++i) {
      FillRun(frequencies[i], begin, end, rope.attention_factor, stride, cos + i, sin + i);
    }
  }
  for (int64_t position = fixed; position < positions; ++position) {
    FillRow(RopeFrequencies(rope, head_dim, position + 1), position, rope.attention_factor,
            cos + position * stride, sin + position * stride);
  }
}

}  // namespace muster
