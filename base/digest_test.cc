#include "base/digest.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace muster {
namespace {

constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();

template <typename... Parts>
uint64_t DigestOf(const Parts&... parts) {
  Digest digest;
  (digest.Add(parts), ...);
  return digest.value();
}

// Ranks of different builds compare digests, so these values never change.
TEST(Digest, IsTheSameInEveryBuild) {
  EXPECT_EQ(Digest().value(), 0xefd01f60ba992926u);
  EXPECT_EQ(DigestOf(uint64_t{0x0123456789abcdef}), 0xf1b1f7378097a748u);
  EXPECT_EQ(DigestOf(absl::string_view("muster")), 0x3195eec0d9e85ba6u);
}

TEST(Digest, TellsWhereOneTextEndsAndTheNextBegins) {
  const absl::string_view a = "a", ab = "ab", bc = "bc", c = "c", empty;
  EXPECT_NE(DigestOf(ab, c), DigestOf(a, bc));
  EXPECT_NE(DigestOf(empty, a), DigestOf(a, empty));
  EXPECT_NE(DigestOf(empty), Digest().value());
}

TEST(Digest, DependsOnTheOrder) {
  EXPECT_NE(DigestOf(uint64_t{1}, uint64_t{2}), DigestOf(uint64_t{2}, uint64_t{1}));
}

TEST(Digest, DependsOnEveryBit) {
  const std::string text = "twelve bytes";
  const uint64_t original = DigestOf(absl::string_view(text));
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string changed = text;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(DigestOf(absl::string_view(changed)), original) << "bit " << bit;
  }
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_NE(DigestOf(uint64_t{1} << bit), DigestOf(uint64_t{0})) << "bit " << bit;
  }
}

TEST(DigestString, HasSixteenDigits) {
  EXPECT_EQ(DigestString(0), "0000000000000000");
  EXPECT_EQ(DigestString(0xab), "00000000000000ab");
  EXPECT_EQ(DigestString(kLargest), "ffffffffffffffff");
}

TEST(ParseDigest, ReadsWhatDigestStringWrote) {
  for (const uint64_t digest : {uint64_t{0}, uint64_t{0xab}, uint64_t{1} << 63, kLargest}) {
    uint64_t read = 1;
    EXPECT_TRUE(ParseDigest(DigestString(digest), &read));
    EXPECT_EQ(read, digest);
  }
}

TEST(ParseDigest, RefusesWhatIsNotSixteenDigits) {
  for (const char* text :
       {"", "ab", "00000000000000a", "00000000000000abc", "00000000000000ag", "0x000000000000ab",
        "-0000000000000ab", "+0000000000000ab", " 000000000000ab", "00000000000000a "}) {
    uint64_t read = 0;
    EXPECT_FALSE(ParseDigest(text, &read)) << text;
  }
}

}  // namespace
}  // namespace muster
