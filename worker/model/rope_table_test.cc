#include "worker/model/rope_table.h"

#include <gtest/gtest.h>

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
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_max_positions = 8192};
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

TEST(RopeTableTest, TableHoldsTheAnglesOfEveryPosition) {
  const std::vector<double> frequencies = {1, 0.25};
  std::vector<float> cos(6), sin(6);
  FillRopeTable(frequencies, 3, cos.data(), sin.data());
  for (int position = 0; position < 3; ++position) {
    for (int i = 0; i < 2; ++i) {
      EXPECT_FLOAT_EQ(cos[position * 2 + i], std::cos(position * frequencies[i]));
      EXPECT_FLOAT_EQ(sin[position * 2 + i], std::sin(position * frequencies[i]));
    }
  }
}

}  // namespace
}  // namespace muster
