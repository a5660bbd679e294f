#include "client/ctl/token_ids.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

TEST(ParseTokenIds, TakesListsOfManyKinds) {
  for (const char* text : {"1,2,4294967295", "1 2 4294967295\n", "[1, 2, 4294967295]\n",
                           "1\n2\r\n4294967295", " [1,\n2,\t4294967295 ] ", "1, 2 4294967295"}) {
    ASSERT_OK_AND_ASSIGN(const auto tokens, ParseTokenIds(text));
    EXPECT_EQ(tokens, (std::vector<uint32_t>{1, 2, 4294967295})) << text;
  }
}

TEST(ParseTokenIds, NamesTheWordThatIsNone) {
  EXPECT_STATUS(ParseTokenIds("1,x2"), absl::StatusCode::kInvalidArgument, "not 'x2'");
  EXPECT_STATUS(ParseTokenIds("[1, -2]"), absl::StatusCode::kInvalidArgument, "not '-2'");
  EXPECT_STATUS(ParseTokenIds("+3"), absl::StatusCode::kInvalidArgument, "not '+3'");
  EXPECT_STATUS(ParseTokenIds("4294967296"), absl::StatusCode::kInvalidArgument, "'4294967296'");
  EXPECT_STATUS(ParseTokenIds(std::string(99, 'y')), absl::StatusCode::kInvalidArgument, "yyy...'");
}

TEST(ParseTokenIds, RefusesListsThatAreEmptyOrHaveGaps) {
  for (const char* text : {"", " \n", "[]", "1,,2", "1,", ",1", "[1,2", "1,2]", "[[1]]", "["}) {
    EXPECT_EQ(ParseTokenIds(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace muster::ctl
