#include "tests/support/local_rendezvous.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/topology.h"
#include "tests/support/status_matchers.h"

namespace muster::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr absl::Duration kAtOnce = absl::Milliseconds(20);

// Ranks 1 and 3, neither of which is rank 0.
class LocalRendezvousTest : public ::testing::Test {
 protected:
  static Group GroupSeenBy(int rank) {
    const std::vector<GlobalRank> ranks = {GlobalRank(3), GlobalRank(1)};
    const GroupSpec spec{
        .id = DigestGroup(Epoch(1), GroupKind::kCp, ranks), .kind = GroupKind::kCp, .ranks = ranks};
    return Group::Create(spec, GlobalRank(rank)).value();
  }

  LocalRendezvousBoard board_;
  LocalRendezvous one_{board_, Epoch(1)};
  LocalRendezvous three_{board_, Epoch(1)};
  const Group seen_by_one_ = GroupSeenBy(1);
  const Group seen_by_three_ = GroupSeenBy(3);
};

TEST_F(LocalRendezvousTest, GivesTheValuesInGroupRankOrder) {
  std::thread peer([&] { EXPECT_OK(three_.AllGather(seen_by_three_, "key", "three", kPatience)); });
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> values,
                       one_.AllGather(seen_by_one_, "key", "one", kPatience));
  peer.join();
  EXPECT_EQ(values, (std::vector<std::string>{"three", "one"}));
}

TEST_F(LocalRendezvousTest, NamesTheMissingRankTheKeyAndTheGroup) {
  const auto values = one_.AllGather(seen_by_one_, "handles", "", kAtOnce);
  EXPECT_STATUS(values, absl::StatusCode::kDeadlineExceeded,
                "all-gather 'handles' of CP[3,1]: rank 3 is missing after 20ms");
  EXPECT_EQ(DetailOf(values.status()).reason, ErrorReason::kRankMissing);
  EXPECT_EQ(DetailOf(values.status()).ranks, std::vector<GlobalRank>{GlobalRank(3)});
}

TEST_F(LocalRendezvousTest, DoesNotCompleteForOneWhatExpiredForAnother) {
  EXPECT_FALSE(one_.AllGather(seen_by_one_, "key", "", kAtOnce).ok());
  EXPECT_STATUS(three_.AllGather(seen_by_three_, "key", "", kPatience),
                absl::StatusCode::kDeadlineExceeded, "rank 3 is missing");
}

TEST_F(LocalRendezvousTest, TellsOfAFailureThoseWhoWaitAndThoseWhoCome) {
  std::thread peer([&] {
    EXPECT_STATUS(three_.AllGather(seen_by_three_, "key", "", kPatience),
                  absl::StatusCode::kAborted, "rank 1 failed: out of luck");
  });
  one_.Fail(seen_by_one_, absl::InternalError("out of luck"));
  peer.join();
  const auto later = one_.AllGather(seen_by_one_, "later", "", kPatience);
  EXPECT_STATUS(later, absl::StatusCode::kAborted, "rank 1 failed: out of luck");
  EXPECT_EQ(DetailOf(later.status()).ranks, std::vector<GlobalRank>{GlobalRank(1)});
}

TEST_F(LocalRendezvousTest, KeepsTheFailuresOfOneEpochFromTheOther) {
  one_.Fail(seen_by_one_, absl::InternalError("out of luck"));
  LocalRendezvous next(board_, Epoch(2));
  EXPECT_STATUS(next.AllGather(seen_by_one_, "key", "", kAtOnce),
                absl::StatusCode::kDeadlineExceeded, "rank 3 is missing");
}

TEST_F(LocalRendezvousTest, CancelEndsTheWaitsOfItsRankAlone) {
  std::thread peer([&] {
    EXPECT_STATUS(three_.AllGather(seen_by_three_, "key", "", kPatience),
                  absl::StatusCode::kCancelled, "enough");
  });
  three_.Cancel(absl::CancelledError("enough"));
  peer.join();
  EXPECT_STATUS(three_.AllGather(seen_by_three_, "later", "", kPatience),
                absl::StatusCode::kCancelled, "enough");
  EXPECT_STATUS(one_.AllGather(seen_by_one_, "later", "", kAtOnce),
                absl::StatusCode::kDeadlineExceeded, "rank 3 is missing");
}

TEST_F(LocalRendezvousTest, NamesALostRank) {
  board_.Lose(GlobalRank(3), "its stream broke");
  EXPECT_STATUS(one_.AllGather(seen_by_one_, "key", "", kPatience), absl::StatusCode::kUnavailable,
                "rank 3 is lost: its stream broke");
}

TEST_F(LocalRendezvousTest, RefusesASecondValueForTheSameKey) {
  std::thread peer([&] { EXPECT_OK(three_.AllGather(seen_by_three_, "key", "", kPatience)); });
  EXPECT_OK(one_.AllGather(seen_by_one_, "key", "", kPatience));
  peer.join();
  EXPECT_STATUS(one_.AllGather(seen_by_one_, "key", "", kPatience),
                absl::StatusCode::kAlreadyExists, "rank 1 has been at 'key' of CP[3,1] before");
}

TEST_F(LocalRendezvousTest, AFaultHitsTheCallItIsPlannedFor) {
  FaultyRendezvous faulty(one_, {.key = "handles", .call = 2});
  EXPECT_FALSE(faulty.AllGather(seen_by_one_, "vote", "", kAtOnce).ok());
  EXPECT_STATUS(faulty.AllGather(seen_by_one_, "handles", "", kAtOnce),
                absl::StatusCode::kDeadlineExceeded, "rank 3 is missing");
  EXPECT_STATUS(faulty.AllGather(seen_by_one_, "handles", "", kPatience),
                absl::StatusCode::kInternal, "injected fault");
}

TEST_F(LocalRendezvousTest, ARankThatNeverArrivesIsMissedByItsPeers) {
  FaultyRendezvous faulty(three_, {.fault = FaultyRendezvous::Fault::kNeverArrives});
  std::thread peer([&] {
    EXPECT_STATUS(faulty.AllGather(seen_by_three_, "key", "", kPatience),
                  absl::StatusCode::kAborted, "rank 3 is missing");
  });
  const auto values = one_.AllGather(seen_by_one_, "key", "", kAtOnce);
  EXPECT_STATUS(values, absl::StatusCode::kDeadlineExceeded, "rank 3 is missing");
  one_.Fail(seen_by_one_, values.status());
  peer.join();
}

TEST_F(LocalRendezvousTest, ALostAnswerLeavesThePeersContent) {
  FaultyRendezvous faulty(three_, {.fault = FaultyRendezvous::Fault::kLosesAnswer});
  std::thread peer([&] {
    EXPECT_STATUS(faulty.AllGather(seen_by_three_, "key", "", kPatience),
                  absl::StatusCode::kInternal, "injected fault");
  });
  EXPECT_OK(one_.AllGather(seen_by_one_, "key", "", kPatience));
  peer.join();
}

}  // namespace
}  // namespace muster::testing
