#include "tests/support/run_ranks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/topology.h"
#include "tests/support/status_matchers.h"

namespace muster::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

Group WorldOf(const RankContext& context, Epoch epoch = Epoch(1)) {
  std::vector<GlobalRank> ranks;
  for (int rank = 0; rank < context.world; ++rank) ranks.push_back(GlobalRank(rank));
  const GroupSpec spec{.id = DigestGroup(epoch, GroupKind::kStage, ranks), .ranks = ranks};
  return Group::Create(spec, context.rank).value();
}

const RankCase kMeet("meet", [](RankContext& context) {
  const auto values = context.rendezvous.AllGather(
      WorldOf(context), "key", absl::StrCat(context.args, context.rank.value()), kPatience);
  if (values.ok()) context.output = absl::StrJoin(*values, " ");
  return values.status();
});

const RankCase kExchangeMegabytes("exchange a megabyte", [](RankContext& context) -> absl::Status {
  const std::string value(1 << 20, static_cast<char>('a' + context.rank.value()));
  MUSTER_ASSIGN_OR_RETURN(const auto values,
                          context.rendezvous.AllGather(WorldOf(context), "key", value, kPatience));
  return values[context.rank.value()] == value ? absl::OkStatus() : absl::DataLossError("altered");
});

const RankCase kTwoEpochs("meet in two epochs", [](RankContext& context) -> absl::Status {
  const std::unique_ptr<Rendezvous> next = context.make_rendezvous(Epoch(2));
  context.rendezvous.Fail(WorldOf(context), absl::InternalError("the first epoch ends"));
  return next->AllGather(WorldOf(context, Epoch(2)), "key", "", kPatience).status();
});

// One rank does what `args` says, the others wait for it.
const RankCase kOneMisbehaves("one misbehaves", [](RankContext& context) -> absl::Status {
  const Group world = WorldOf(context);
  if (context.rank == GlobalRank(1)) {
    if (context.args == "dies") raise(SIGKILL);
    if (context.args == "exits") std::_Exit(7);
    while (context.args == "hangs") pause();
    const absl::Status reason = MakeError(absl::StatusCode::kInternal, "out of luck",
                                          {.ranks = {GlobalRank(1)}, .phase = "probe"});
    context.rendezvous.Fail(world, reason);
    return reason;
  }
  const absl::Duration timeout =
      context.args == "exits" ? absl::Milliseconds(500) : absl::Seconds(60);
  const absl::Status status = context.rendezvous.AllGather(world, "key", "", timeout).status();
  context.output = DetailOf(status).phase;
  return status;
});

class RunRanksTest : public ::testing::TestWithParam<RanksAs> {
 protected:
  static std::vector<RankResult> Run(int world, absl::string_view name, std::string args = "") {
    return RunRanks(world, name, {.as = GetParam(), .args = std::move(args)});
  }
};

INSTANTIATE_TEST_SUITE_P(As, RunRanksTest,
                         ::testing::Values(RanksAs::kThreads, RanksAs::kProcesses),
                         [](const auto& info) {
                           return info.param == RanksAs::kThreads ? "Threads" : "Processes";
                         });

TEST_P(RunRanksTest, AllRanksMeetAndHandBackTheirOutputs) {
  const auto results = Run(5, "meet", "rank-");
  ASSERT_OK(AllOk(results));
  for (const RankResult& result : results) {
    EXPECT_EQ(result.output, "rank-0 rank-1 rank-2 rank-3 rank-4");
  }
}

TEST_P(RunRanksTest, ValuesMayHaveAMegabyte) { EXPECT_OK(AllOk(Run(3, "exchange a megabyte"))); }

TEST_P(RunRanksTest, EpochsAreApart) { EXPECT_OK(AllOk(Run(2, "meet in two epochs"))); }

TEST_P(RunRanksTest, AFailureReachesThePeersWithItsDetail) {
  const auto results = Run(3, "one misbehaves", "fails");
  EXPECT_STATUS(results[1].status, absl::StatusCode::kInternal, "out of luck");
  for (int rank : {0, 2}) {
    EXPECT_STATUS(results[rank].status, absl::StatusCode::kAborted, "rank 1 failed: out of luck");
    EXPECT_EQ(results[rank].output, "probe");
  }
}

TEST(RunRanksAsProcessesTest, AKilledRankIsNamedByAll) {
  const auto results = RunRanks(3, "one misbehaves", {.as = RanksAs::kProcesses, .args = "dies"});
  EXPECT_STATUS(results[1].status, absl::StatusCode::kUnavailable, "rank 1 was killed by signal 9");
  EXPECT_STATUS(results[0].status, absl::StatusCode::kUnavailable, "rank 1 is lost");
  EXPECT_STATUS(results[2].status, absl::StatusCode::kUnavailable, "rank 1 is lost");
}

TEST(RunRanksAsProcessesTest, ARankThatExitsIsMissing) {
  const auto results = RunRanks(2, "one misbehaves", {.as = RanksAs::kProcesses, .args = "exits"});
  EXPECT_STATUS(results[1].status, absl::StatusCode::kUnavailable,
                "rank 1 exited with 7 and no result");
  EXPECT_STATUS(results[0].status, absl::StatusCode::kDeadlineExceeded, "rank 1 is missing");
}

TEST(RunRanksAsProcessesTest, AStuckRankIsKilledAndNamed) {
  const auto results =
      RunRanks(2, "one misbehaves",
               {.as = RanksAs::kProcesses, .args = "hangs", .timeout = absl::Seconds(1)});
  EXPECT_STATUS(results[1].status, absl::StatusCode::kDeadlineExceeded,
                "rank 1 was stuck, and was killed");
}

}  // namespace
}  // namespace muster::testing
