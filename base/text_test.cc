#include "base/text.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace muster {
namespace {

TEST(Text, NumbersHaveCommasAtEveryThousand) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(123456), "123,456");
  EXPECT_EQ(WithCommas(UINT64_MAX), "18,446,744,073,709,551,615");
}

TEST(Text, NamesAreWhatPodsAreCalled) {
  for (const std::string name : {"w", "gpu-3.cluster_A", "0", "..."}) EXPECT_TRUE(IsName(name));
  EXPECT_TRUE(IsName(std::string(128, 'w')));
  EXPECT_FALSE(IsName(std::string(129, 'w')));
  for (const std::string name : {"", "a b", "a/b", "\xC3\xA9", "a\n"}) EXPECT_FALSE(IsName(name));
}

TEST(Text, CharactersAreWellFormedOrNone) {
  EXPECT_EQ(CharacterBytes("a\xC3\xA9"), 1u);
  EXPECT_EQ(CharacterBytes("\xC3\xA9z"), 2u);
  EXPECT_EQ(CharacterBytes("\xE2\x82\xAC"), 3u);
  EXPECT_EQ(CharacterBytes("\xF0\x9F\x98\x80"), 4u);
  // Alone, cut off, overlong, a surrogate, beyond the last.
  for (const std::string bad : {"\x80", "\xC3", "\xE2\x82", "\xC0\xAF", "\xE0\x80\x80",
                                "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xFF"}) {
    EXPECT_EQ(CharacterBytes(bad), 0u) << bad.size();
  }
}

TEST(Text, OneIsSingular) {
  EXPECT_EQ(Counted(0, "sequence"), "0 sequences");
  EXPECT_EQ(Counted(1, "sequence"), "1 sequence");
  EXPECT_EQ(Counted(1456, "KV block"), "1,456 KV blocks");
}

TEST(Text, TimesAreSaidInTheirTwoLargestUnits) {
  EXPECT_EQ(InUnits(absl::Minutes(10)), "10 min");
  EXPECT_EQ(InUnits(absl::Seconds(1)), "1 s");
  EXPECT_EQ(InUnits(absl::Seconds(90)), "1 min 30 s");
  EXPECT_EQ(InUnits(absl::Milliseconds(1500)), "1 s 500 ms");
  EXPECT_EQ(InUnits(absl::Hours(24)), "24 h");
  EXPECT_EQ(InUnits(absl::Hours(1) + absl::Seconds(5) + absl::Milliseconds(7)), "1 h 5 s");
  EXPECT_EQ(InUnits(absl::Hours(1000) + absl::Minutes(1)), "1,000 h 1 min");
}

TEST(Text, ThereIsAShortestTime) {
  EXPECT_EQ(InUnits(absl::Nanoseconds(1)), "0 ms");
  EXPECT_EQ(InUnits(-absl::Seconds(1)), "0 ms");
}

TEST(Text, IdsArePrintableWhateverTheyAreMadeOf) {
  EXPECT_EQ(QuotedId("bench-7"), "'bench-7'");
  EXPECT_EQ(QuotedId("a\n\x1b[31m'\xff"), "'a\\n\\x1b[31m\\'\\xff'");
  EXPECT_EQ(QuotedId(std::string(128, 'x')), "'" + std::string(128, 'x') + "'");
}

}  // namespace
}  // namespace muster
