#include "worker/collective/shm/shm_peers.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/status_matchers.h"
#include "worker/collective/shm/shm_ranks.h"

namespace muster {
namespace {

using testing::ShmRanks;

absl::Status Barrier(ShmRanks::Rank& rank) {
  return rank.endpoint->MakeCommunicator(rank.group)->Barrier(*rank.stream);
}

std::vector<GlobalRank> Ranks(std::vector<int> ranks) {
  std::vector<GlobalRank> result;
  for (int rank : ranks) result.push_back(GlobalRank(rank));
  return result;
}

TEST(ShmPeersTest, NamesTheRankThatDoesNotComeToAllWhoWait) {
  ShmRanks ranks(3, {.wait_timeout = absl::Milliseconds(50), .first_global_rank = 4});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    MUSTER_RETURN_IF_ERROR(Barrier(rank));
    return rank.group.rank() == GroupRank(1) ? absl::OkStatus() : Barrier(rank);
  });
  for (int waiting : {0, 2}) {
    EXPECT_STATUS(statuses[waiting], absl::StatusCode::kDeadlineExceeded,
                  "missing after 50ms in collective 2 of STAGE[4,5,6]: rank 5 (group rank 1, at "
                  "collective 1: barrier)");
    EXPECT_EQ(DetailOf(statuses[waiting]).reason, ErrorReason::kRankMissing);
    EXPECT_EQ(DetailOf(statuses[waiting]).ranks, Ranks({5}));
  }
  EXPECT_STATUS(Barrier(ranks[1]), absl::StatusCode::kDeadlineExceeded, "rank 5");
}

TEST(ShmPeersTest, TellsRanksThatDisagreeWhatEachHas) {
  ShmRanks ranks(2, {});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    std::vector<float> data(16);
    const size_t count = rank.group.rank() == GroupRank(0) ? 8 : 16;
    return rank.endpoint->MakeCommunicator(rank.group)
        ->AllReduce(*rank.stream, data.data(), count, DType::kFloat32);
  });
  for (const absl::Status& status : statuses) {
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "ranks disagree on collective 1");
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  "rank 0 has all-reduce of 8 x 4 bytes float32");
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  "rank 1 has all-reduce of 16 x 4 bytes float32");
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kDisagreement);
  }
}

TEST(ShmPeersTest, ReleasesRanksThatWaitForOneThatLeft) {
  ShmRanks ranks(3, {});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    if (rank.group.rank() != GroupRank(2)) return Barrier(rank);
    rank.endpoint.reset();
    return absl::OkStatus();
  });
  EXPECT_STATUS(statuses[0], absl::StatusCode::kUnavailable, "rank 2 left STAGE[0,1,2]");
  EXPECT_STATUS(statuses[1], absl::StatusCode::kUnavailable, "rank 2 left STAGE[0,1,2]");
}

TEST(ShmPeersTest, LetsARankLeaveAfterTheLastCollectiveOfAll) {
  ShmRanks ranks(3, {});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    for (int i = 0; i < 20; ++i) MUSTER_RETURN_IF_ERROR(Barrier(rank));
    rank.endpoint.reset();
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_OK(status);
}

TEST(ShmPeersTest, CarriesTheReasonOfAnAbortToAllRanksAndKeepsTheFirst) {
  ShmRanks ranks(3, {});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    if (rank.group.rank() != GroupRank(1)) return Barrier(rank);
    rank.endpoint->Abort(MakeError(absl::StatusCode::kDataLoss, "the cable burns",
                                   {.reason = ErrorReason::kRankLost, .ranks = {GlobalRank(1)}}));
    rank.endpoint->Abort(absl::InternalError("something else"));
    return absl::OkStatus();
  });
  for (int rank = 0; rank < 3; ++rank) {
    const absl::Status status = Barrier(ranks[rank]);
    EXPECT_STATUS(status, absl::StatusCode::kDataLoss, "the cable burns");
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kRankLost);
    EXPECT_EQ(DetailOf(status).ranks, Ranks({1}));
  }
  EXPECT_STATUS(statuses[0], absl::StatusCode::kDataLoss, "the cable burns");
}

TEST(ShmPeersTest, WakesASleepingPeerWhenItIsAborted) {
  ShmRanks ranks(2, {.wait_timeout = absl::Minutes(10)});
  absl::Status status;
  std::thread waiter([&] { status = Barrier(ranks[0]); });
  ranks[1].endpoint->Abort(absl::CancelledError("enough"));
  waiter.join();
  EXPECT_STATUS(status, absl::StatusCode::kCancelled, "enough");
}

TEST(ShmPeersTest, ExchangesManyTimesWithoutMixingSlabs) {
  ShmRanks ranks(4, {});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    const auto communicator = rank.endpoint->MakeCommunicator(rank.group);
    const int self = rank.group.rank().value();
    for (int round = 0; round < 2000; ++round) {
      const int own = round * 4 + self;
      int all[4] = {};
      MUSTER_RETURN_IF_ERROR(communicator->AllGather(*rank.stream, &own, all, sizeof(own)));
      for (int peer = 0; peer < 4; ++peer) {
        if (all[peer] != round * 4 + peer) return absl::DataLossError("a stale slab");
      }
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_OK(status);
}

TEST(ShmPeersTest, LonelyRankWaitsForNobodyAndCanBeAborted) {
  ShmRanks ranks(1, {});
  EXPECT_EQ(ranks[0].ledger.total(), 4096u);
  EXPECT_OK(Barrier(ranks[0]));
  ranks[0].endpoint->Abort(absl::CancelledError("enough"));
  EXPECT_STATUS(Barrier(ranks[0]), absl::StatusCode::kCancelled, "enough");
}

TEST(ShmPeersTest, CountsTheTimeInWhichARankWaitedForOthers) {
  ShmRanks ranks(2, {.wait_timeout = absl::Milliseconds(30)});
  const auto statuses = ranks.Run([](ShmRanks::Rank& rank) {
    return rank.group.rank() == GroupRank(1) ? absl::OkStatus() : Barrier(rank);
  });
  EXPECT_STATUS(statuses[0], absl::StatusCode::kDeadlineExceeded, "rank 1");
  EXPECT_GE(*ranks[0].backend.waited(), absl::Milliseconds(30));
  EXPECT_EQ(*ranks[1].backend.waited(), absl::ZeroDuration());
}

}  // namespace
}  // namespace muster
