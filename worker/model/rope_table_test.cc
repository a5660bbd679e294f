#include "worker/model/rope_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace muster {
namespace {

TEST(RopeTableTest, FrequenciesFallFromOneByPowersOfTheta) {
  const std::vector<double> frequencies = RopeFrequencies({.theta = 10000}, 8);
  ASSERT_EQ(frequencies.size(), 4u);
  EXPECT_DOUBLE_EQ(frequencies[0], 1);
  EXPECT_DOUBLE_EQ(frequencies[1], 0.1);
  EXPECT_DOUBLE_EQ(frequencies[3], 0.001);
}

TEST(RopeTableTest, Llama3KeepsShortWavelengthsAndStretchesLongOnes) {
  const RopeConfig plain = {.theta = 500000};
  const RopeConfig scaled = {.type = RopeConfig::Type::kLlama3,
                             .theta = 500000,
                             .factor = 8,
                             .original_max_positions = 8192,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4};
  const std::vector<double> before = RopeFrequencies(plain, 128);
  const std::vector<double> after = RopeFrequencies(scaled, 128);
  for (size_t i = 0; i < before.size(); ++i) {
    const double wavelength = 2 * M_PI / before[i];
    if (wavelength < 8192.0 / 4) {
      EXPECT_DOUBLE_EQ(after[i], before[i]) << i;
    } else if (wavelength > 8192.0 / 1) {
      EXPECT_DOUBLE_EQ(after[i], before[i] / 8) << i;
    } else {
      EXPECT_LT(after[i], before[i]) << i;
      EXPECT_GT(after[i], before[i] / 8) << i;
    }
  }
}

TEST(RopeTableTest, LinearStretchesEveryWavelength) {
  const std::vector<double> plain = RopeFrequencies({}, 16);
  const std::vector<double> scaled =
      RopeFrequencies({.type = RopeConfig::Type::kLinear, .factor = 2.5}, 16);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(scaled[i], plain[i] / 2.5);
}

TEST(RopeTableTest, DynamicChangesNothingUpToTheOriginalContext) {
  const RopeConfig rope = {
      .type = RopeConfig::Type::kDynamic, .factor = 4, .original_max_positions = 32};
  EXPECT_EQ(RopeFrequencies(rope, 16, 32), RopeFrequencies({}, 16));
  // Twice the context: theta times (4 * 2 - 3)^(16 / 14).
  const double theta = 10000 * std::pow(5.0, 16.0 / 14);
  const std::vector<double> longer = RopeFrequencies(rope, 16, 64);
  for (size_t i = 0; i < longer.size(); ++i) {
    EXPECT_DOUBLE_EQ(longer[i], std::pow(theta, -2.0 * static_cast<double>(i) / 16)) << i;
  }
}

// Worked by hand from the paper: 64 dimensions, theta 10,000, 32 and 1 turns over 4,096 positions
// are at pairs 10.47 and 22.51.
TEST(RopeTableTest, YarnRampsBetweenThePairsThatTurnOftenAndSeldom) {
  RopeConfig rope = {.type = RopeConfig::Type::kYarn, .factor = 8, .original_max_positions = 4096};
  const std::vector<double> plain = RopeFrequencies({}, 64);
  const std::vector<double> whole = RopeFrequencies(rope, 64);
  rope.truncate = false;
  const std::vector<double> exact = RopeFrequencies(rope, 64);
  for (int pair = 0; pair < 32; ++pair) {
    const double by_eight = std::clamp((pair - 10) / 13.0, 0.0, 1.0);
    EXPECT_DOUBLE_EQ(whole[pair], plain[pair] * (1 - by_eight * 7 / 8)) << pair;
    const double exactly = std::clamp((pair - 10.4729) / (22.5134 - 10.4729), 0.0, 1.0);
    EXPECT_NEAR(exact[pair] / plain[pair], 1 - exactly * 7 / 8, 1e-4) << pair;
  }
}

void ExpectRightAngles(const RopeConfig& rope, int head_dim, int64_t positions) {
  const int64_t pairs = head_dim / 2;
  std::vector<float> cos(positions * pairs), sin(positions * pairs);
  FillRopeTable(rope, head_dim, positions, cos.data(), sin.data());
  for (int64_t position = 0; position < positions; ++position) {
    const std::vector<double> frequencies = RopeFrequencies(rope, head_dim, position + 1);
    for (int64_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      const double scale = rope.attention_factor;
      // Half a step of float32, and what 64 turns add in double.
      ASSERT_NEAR(cos[position * pairs + i], scale * std::cos(angle), 0x1p-24 * scale) << position;
      ASSERT_NEAR(sin[position * pairs + i], scale * std::sin(angle), 0x1p-24 * scale) << position;
    }
  }
}

TEST(RopeTableTest, TableHoldsTheAnglesOfEveryPosition) {
  ExpectRightAngles({}, 6, 1);
  ExpectRightAngles({}, 10, 64);
  ExpectRightAngles({.theta = 500000}, 128, 70'001);
  ExpectRightAngles({.type = RopeConfig::Type::kYarn,
                     .factor = 4,
                     .original_max_positions = 512,
                     .attention_factor = 1.2},
                    64, 2048);
  ExpectRightAngles(
      {.type = RopeConfig::Type::kDynamic, .factor = 4, .original_max_positions = 100}, 32, 400);
}

}  // namespace
}  // namespace muster
