#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace muster {
namespace {

template <typename T>
T FromBits(uint32_t bits) {
  T value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

template <typename T>
class NarrowFloatTest : public ::testing::Test {};
using NarrowFloats = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(NarrowFloatTest, NarrowFloats);

TYPED_TEST(NarrowFloatTest, EveryValueSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = static_cast<float>(FromBits<TypeParam>(bits));
    const TypeParam back(value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(back))) << bits;
    } else {
      ASSERT_EQ(back.bits, bits);
    }
  }
}

TYPED_TEST(NarrowFloatTest, ValuesGrowWithTheirBits) {
  const uint32_t infinity = TypeParam(std::numeric_limits<float>::infinity()).bits;
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    ASSERT_LT(static_cast<float>(FromBits<TypeParam>(bits)),
              static_cast<float>(FromBits<TypeParam>(bits + 1)));
  }
}

// Between each value and the next: the middle goes to the even one, all else to the nearer.
TYPED_TEST(NarrowFloatTest, RoundsToNearestAndTiesToEven) {
  const uint32_t infinity = TypeParam(std::numeric_limits<float>::infinity()).bits;
  for (uint32_t bits = 0; bits + 1 < infinity; ++bits) {
    const float low = static_cast<float>(FromBits<TypeParam>(bits));
    const float high = static_cast<float>(FromBits<TypeParam>(bits + 1));
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(TypeParam(middle).bits, bits + bits % 2);
    ASSERT_EQ(TypeParam(std::nextafter(middle, low)).bits, bits);
    ASSERT_EQ(TypeParam(std::nextafter(middle, high)).bits, bits + 1);
    ASSERT_EQ(TypeParam(-middle).bits, 0x8000 + bits + bits % 2);
  }
}

TYPED_TEST(NarrowFloatTest, KeepsSignedZeroInfinityAndNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(TypeParam(-0.0f).bits, 0x8000);
  EXPECT_EQ(static_cast<float>(TypeParam(infinity)), infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(-infinity)), -infinity);
  for (const uint32_t nan : {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu}) {
    EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::bit_cast<float>(nan))))) << nan;
  }
}

TEST(Float16Test, OverflowsHalfwayBeyondItsLargest) {
  EXPECT_EQ(static_cast<float>(Float16(65519.0f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(Float16(65520.0f)), std::numeric_limits<float>::infinity());
  EXPECT_EQ(static_cast<float>(Float16(-1e30f)), -std::numeric_limits<float>::infinity());
}

TEST(BFloat16Test, OverflowsHalfwayBeyondItsLargest) {
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x7F7F7FFFu)).bits, 0x7F7F);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x7F7F8000u)).bits, 0x7F80);
}

}  // namespace
}  // namespace muster
