#include "client/ctl/text.h"

#include <gtest/gtest.h>

namespace muster::ctl {
namespace {

TEST(TextTest, ThousandsAreSeparated) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(18446744073709551615u), "18,446,744,073,709,551,615");
}

TEST(TextTest, BytesHaveBinaryUnitsAndAtMostThreeDigits) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1000), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1258291), "1.2 MiB");
  EXPECT_EQ(HumanBytes(512u << 20), "512 MiB");
  EXPECT_EQ(HumanBytes(1000ull << 20), "1.0 GiB");
  EXPECT_EQ(HumanBytes(18446744073709551615u), "16 EiB");
}

TEST(TextTest, DurationsUseTheUnitsOfPeople) {
  EXPECT_EQ(HumanDuration(-absl::Seconds(1)), "0 ms");
  EXPECT_EQ(HumanDuration(absl::Microseconds(420)), "0.4 ms");
  EXPECT_EQ(HumanDuration(absl::Microseconds(960)), "1 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(4)), "4 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(99)), "99 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(380)), "0.4 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(59)), "59 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(200)), "3 min 20 s");
  EXPECT_EQ(HumanDuration(absl::Hours(3) + absl::Minutes(12)), "3 h 12 min");
  EXPECT_EQ(HumanDuration(absl::Hours(49)), "2 d 1 h");
}

TEST(TextTest, NounsAgreeWithTheirNumber) {
  EXPECT_EQ(Count(1, "worker"), "1 worker");
  EXPECT_EQ(Count(2000, "worker"), "2,000 workers");
}

TEST(TextTest, ListsBreakBetweenItemsAndNeverWithinOne) {
  EXPECT_EQ(WrapList({"a 1", "b 22", "c 3"}, 10), (std::vector<std::string>{"a 1, b 22,", "c 3"}));
  EXPECT_EQ(WrapList({"a 1", "far too long", "b"}, 8),
            (std::vector<std::string>{"a 1,", "far too long,", "b"}));
  EXPECT_TRUE(WrapList({}, 8).empty());
}

TEST(TextTest, BarsAreAsWideAsAskedWhateverTheFraction) {
  EXPECT_EQ(Bar(0.5, 8), "████░░░░");
  EXPECT_EQ(Bar(-1, 2), "░░");
  EXPECT_EQ(Bar(7, 2), "██");
  EXPECT_EQ(DisplayWidth(Bar(0.3, 26)), 26);
}

TEST(TextTest, TableAlignsColumnsByDisplayWidthAndEndsNoLineWithSpaces) {
  Table table({{"RANK"}, {"KV"}, {"STEP", Table::Align::kRight}, {"NOTE"}});
  table.AddRow({"0", "██░░", "7", ""});
  table.AddRow({"10", "-", "12,345", "x"});
  EXPECT_EQ(table.ToString(),
            "RANK  KV      STEP  NOTE\n"
            "0     ██░░       7\n"
            "10    -     12,345  x\n");
}

}  // namespace
}  // namespace muster::ctl
