#include "worker/engine/layer_lengths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

TEST(LayerLengthsTest, ARangeHasALengthWhereItsLayersAgree) {
  LayerLengths lengths(30, 5);
  EXPECT_EQ(lengths.Of({0, 30}), 5);
  lengths.Set({0, 15}, 9);
  EXPECT_EQ(lengths.Of({0, 15}), 9);
  EXPECT_EQ(lengths.Of({15, 30}), 5);
  EXPECT_EQ(lengths.Of({14, 16}), std::nullopt);
  EXPECT_EQ(lengths.Of({0, 30}), std::nullopt);
  EXPECT_EQ(lengths.shortest(), 5);
  EXPECT_EQ(lengths.longest(), 9);
  lengths.Set({15, 30}, 9);
  EXPECT_EQ(lengths.Of({0, 30}), 9);
}

TEST(LayerLengthsTest, AModelWithoutLayersHasALength) {
  LayerLengths lengths(0);
  EXPECT_EQ(lengths.Of({0, 0}), 0);
  lengths.Set({0, 0}, 7);
  EXPECT_EQ(lengths.Of({0, 0}), 7);
  EXPECT_EQ(lengths.shortest(), 7);
}

TEST(LayerLengthsTest, AgreesWithALengthPerLayer) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::minstd_rand random(seed);
    const int layers = 1 + static_cast<int>(random() % 9);
    LayerLengths lengths(layers);
    std::vector<int64_t> naive(layers, 0);
    for (int step = 0; step < 200; ++step) {
      const int begin = static_cast<int>(random() % layers);
      const int end = begin + 1 + static_cast<int>(random() % (layers - begin));
      const auto length = static_cast<int64_t>(random() % 4);
      lengths.Set({begin, end}, length);
      std::fill(naive.begin() + begin, naive.begin() + end, length);
      EXPECT_EQ(lengths.shortest(), *std::min_element(naive.begin(), naive.end()));
      EXPECT_EQ(lengths.longest(), *std::max_element(naive.begin(), naive.end()));
      for (int from = 0; from < layers; ++from) {
        for (int to = from + 1; to <= layers; ++to) {
          const bool equal = std::all_of(naive.begin() + from, naive.begin() + to,
                                         [&](int64_t it) { return it == naive[from]; });
          ASSERT_EQ(lengths.Of({from, to}),
                    equal ? std::optional<int64_t>(naive[from]) : std::nullopt);
        }
      }
    }
  }
}

}  // namespace
}  // namespace muster
