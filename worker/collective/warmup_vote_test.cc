#include "worker/collective/warmup_vote.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

Group GroupOf(std::vector<int> ranks) {
  GroupSpec spec;
  for (int rank : ranks) spec.ranks.push_back(GlobalRank(rank));
  return *Group::Create(spec, spec.ranks[0]);
}

TEST(WarmupVoteTest, IsCarriedWhenAllRanksSucceed) {
  const std::string yes = WarmupVote{.wanted_bytes = 5, .free_bytes = 9}.Encode();
  EXPECT_OK(CountVotes(GroupOf({4, 6}), {yes, yes}));
}

TEST(WarmupVoteTest, NamesTheRankThatFailedWithItsNumbersAndThoseWhoDidNot) {
  const std::string yes = WarmupVote{.wanted_bytes = 5, .free_bytes = 9}.Encode();
  const std::string no = WarmupVote{.status = absl::ResourceExhaustedError("no room; really"),
                                    .wanted_bytes = uint64_t{3} << 20,
                                    .free_bytes = 2048}
                             .Encode();
  const absl::Status status = CountVotes(GroupOf({4, 6, 8}), {yes, no, yes});
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted,
                "rank 6 wanted 3.0 MiB for workspaces, 2.0 KiB free (no room; really); "
                "ranks 4, 8 succeeded and let go");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kOutOfMemory);
  EXPECT_EQ(DetailOf(status).ranks, std::vector<GlobalRank>{GlobalRank(6)});
}

TEST(WarmupVoteTest, TellsAnyOtherReasonAsItIs) {
  const std::string no = WarmupVote{.status = absl::UnavailableError("cannot open")}.Encode();
  EXPECT_STATUS(CountVotes(GroupOf({4, 6}), {no, no}), absl::StatusCode::kUnavailable,
                "rank 4: cannot open; rank 6: cannot open");
}

TEST(WarmupVoteTest, IsRefusedWhenItCannotBeRead) {
  for (const char* text : {"", "0;1", "99;1;2;", "x;1;2;", "0;-1;2;"}) {
    EXPECT_STATUS(WarmupVote::Decode(text), absl::StatusCode::kInvalidArgument, "not a vote");
  }
}

}  // namespace
}  // namespace muster
