// What befalls the other ranks when one fails: all end soon, and all say who it was.
#include <csignal>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "tests/conformance/rank_harness.h"
#include "tests/support/status_matchers.h"

namespace muster::testing {
namespace {

class FailureConformance : public RanksConformance {};
INSTANTIATE_CONFORMANCE(FailureConformance);

constexpr int kHidden = 64;

// A fused norm of so many tokens over constant operands.
absl::Status Norm(RankHarness& rank, Workspace& workspace, int tokens) {
  const size_t count = static_cast<size_t>(tokens) * kHidden;
  const Bytes ones = Encode(std::vector<float>(count, 1.0f), DType::kFloat32);
  MUSTER_ASSIGN_OR_RETURN(const Buffer partial, rank.Upload(ones));
  MUSTER_ASSIGN_OR_RETURN(const Buffer norm, rank.Allocate(ones.size()));
  const FusedAllReduceRmsNorm op{.partial = partial.data(),
                                 .weight = partial.as<float>(),
                                 .norm_out = norm.data(),
                                 .tokens = tokens,
                                 .hidden = kHidden,
                                 .eps = 1e-5f};
  return rank.Execute([&] { return workspace.Enqueue(rank.stream(), op); });
}

absl::Status ExpectCulprits(const absl::Status& status, ErrorReason reason,
                            const std::vector<int>& ranks) {
  std::vector<GlobalRank> wanted;
  for (int rank : ranks) wanted.push_back(GlobalRank(rank));
  const ErrorDetail detail = DetailOf(status);
  return ExpectTrue(detail.reason == reason && detail.ranks == wanted,
                    absl::StrCat("the culprits of: ", status.ToString()));
}

RANKS_TEST(FailureConformance, AbortReleasesPeersBlockedInTheFusedNorm, {2, 3, 5}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  MUSTER_RETURN_IF_ERROR(Norm(rank, *joined.workspace, 2));
  if (rank.rank() == 0) {
    joined.workspace->Abort(absl::DataLossError("the power fails"));
  } else {
    MUSTER_RETURN_IF_ERROR(ExpectStatus(Norm(rank, *joined.workspace, 2),
                                        absl::StatusCode::kDataLoss, "the power fails"));
  }
  // From then on nothing of the group works, for anybody.
  const absl::Status later =
      rank.Execute([&] { return joined.communicator->Barrier(rank.stream()); });
  MUSTER_RETURN_IF_ERROR(ExpectStatus(later, absl::StatusCode::kDataLoss, "the power fails"));
  return rank.Meet("all have seen it").status();
}

RANKS_TEST(FailureConformance, AnAbortEndsItsOwnGroupAndNoOther, {4}) {
  const int first = rank.rank() / 2 * 2;
  MUSTER_ASSIGN_OR_RETURN(const Group pair, rank.GroupOf(GroupKind::kTp, {first, first + 1}));
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup tp, rank.Join(pair, 16 << 10));
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup all, rank.JoinWorld());
  if (rank.rank() == 0) tp.communicator->Abort(absl::DataLossError("the power fails"));
  const absl::Status of_pair =
      rank.Execute([&] { return tp.communicator->Barrier(rank.stream()); });
  if (first == 0) {
    MUSTER_RETURN_IF_ERROR(ExpectStatus(of_pair, absl::StatusCode::kDataLoss, "the power fails"));
  } else {
    MUSTER_RETURN_IF_ERROR(of_pair);
  }
  rank.stream().Synchronize().IgnoreError();  // its error was seen already
  return Norm(rank, *all.workspace, 3);
}

RANKS_TEST(FailureConformance, ARankThatDoesNotComeIsNamedWithinTheDeadline, {2, 5}) {
  MUSTER_RETURN_IF_ERROR(rank.UseBackend({.wait_timeout = absl::Seconds(1)}));
  const int missing = rank.world() - 1;
  {
    MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
    if (rank.rank() != missing) {
      const absl::Status status = Norm(rank, *joined.workspace, 2);
      MUSTER_RETURN_IF_ERROR(ExpectStatus(status, absl::StatusCode::kDeadlineExceeded,
                                          absl::StrCat("rank ", missing, " ")));
      MUSTER_RETURN_IF_ERROR(ExpectCulprits(status, ErrorReason::kRankMissing, {missing}));
    }
    MUSTER_RETURN_IF_ERROR(rank.Meet("the deadline has passed").status());
    if (rank.rank() == missing) {
      MUSTER_RETURN_IF_ERROR(ExpectStatus(Norm(rank, *joined.workspace, 2),
                                          absl::StatusCode::kDeadlineExceeded,
                                          absl::StrCat("rank ", missing, " ")));
    }
  }
  return absl::OkStatus();
}

RANKS_TEST(FailureConformance, RanksWithDifferentTokenCountsAreRefusedAndNamed, {2, 3}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  MUSTER_RETURN_IF_ERROR(Norm(rank, *joined.workspace, 4));
  const absl::Status status = Norm(rank, *joined.workspace, rank.rank() == 1 ? 5 : 4);
  MUSTER_RETURN_IF_ERROR(ExpectStatus(status, absl::StatusCode::kFailedPrecondition, "rank 1 has"));
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kFailedPrecondition, "5 x 256 bytes"));
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kFailedPrecondition, "4 x 256 bytes"));
  return rank.Meet("all have seen it").status();
}

RANKS_TEST(FailureConformance, RanksInDifferentOperationsAreRefusedAndNamed, {2}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  const absl::Status status =
      rank.rank() == 0 ? Norm(rank, *joined.workspace, 4)
                       : rank.Execute([&] { return joined.communicator->Barrier(rank.stream()); });
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kFailedPrecondition, "rank 1 has barrier"));
  MUSTER_RETURN_IF_ERROR(
      ExpectCulprits(Norm(rank, *joined.workspace, 4), ErrorReason::kDisagreement,
                     DetailOf(status).ranks[0] == GlobalRank(0) ? std::vector<int>{0, 1}
                                                                : std::vector<int>{1, 0}));
  return rank.Meet("all have seen it").status();
}

RANKS_TEST(FailureConformance, ARankThatIsDestroyedReleasesItsPeersAndWaitsForNobody, {2, 3, 5}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  MUSTER_RETURN_IF_ERROR(Norm(rank, *joined.workspace, 2));
  const int gone = rank.world() / 2;
  if (rank.rank() == gone) {
    joined = JoinedGroup{.group = joined.group};
    return absl::OkStatus();
  }
  const absl::Status status = Norm(rank, *joined.workspace, 2);
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kUnavailable, absl::StrCat("rank ", gone)));
  return ExpectCulprits(status, ErrorReason::kRankLost, {gone});
}

RANKS_TEST(FailureConformance, ARankThatLeavesAfterTheLastCollectiveDisturbsNobody, {2, 3, 5}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (int i = 0; i < 10; ++i) MUSTER_RETURN_IF_ERROR(Norm(rank, *joined.workspace, 2));
  return absl::OkStatus();
}

class KilledRankConformance : public RanksConformance {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KilledRankConformance);
INSTANTIATE_TEST_SUITE_P(On, KilledRankConformance,
                         ::testing::ValuesIn(VariantsAs(RanksAs::kProcesses)),
                         [](const auto& info) { return info.param.Name(); });

const RankCase kKilled("KilledRank", [](RankContext& context) {
  return RankHarness::Run(context, [](RankHarness& rank) -> absl::Status {
    MUSTER_RETURN_IF_ERROR(rank.UseBackend({.wait_timeout = absl::Seconds(1)}));
    MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
    MUSTER_RETURN_IF_ERROR(Norm(rank, *joined.workspace, 2));
    if (rank.rank() == 1) raise(SIGKILL);
    return ExpectStatus(Norm(rank, *joined.workspace, 2), absl::StatusCode::kDeadlineExceeded,
                        "rank 1 ");
  });
});

TEST_P(KilledRankConformance, LeavesNobodyWaitingAndIsNamed) {
  const std::vector<RankResult> results = Run(3, "KilledRank");
  EXPECT_STATUS(results[1].status, absl::StatusCode::kUnavailable, "killed by signal 9");
  EXPECT_OK(results[0].status);
  EXPECT_OK(results[2].status);
}

}  // namespace
}  // namespace muster::testing
