#include "worker/service/grpc_rendezvous.h"

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/wire_status.h"
#include "tests/support/status_matchers.h"
#include "worker/service/coordinator_channel.h"
#include "worker/service/fake_coordinator.h"

namespace muster {
namespace {

using Values = absl::StatusOr<std::vector<std::string>>;

constexpr Epoch kEpoch(5);
constexpr absl::Duration kTimeout = absl::Minutes(5);

// CP[1,3]: group ranks that are no global ranks.
Group MakeGroup(int global_rank) {
  const std::vector<GlobalRank> ranks = {GlobalRank(1), GlobalRank(3)};
  const GroupSpec spec = {DigestGroup(kEpoch, GroupKind::kCp, ranks), GroupKind::kCp, ranks};
  return Group::Create(spec, GlobalRank(global_rank)).value();
}

class GrpcRendezvousTest : public ::testing::Test {
 protected:
  // The server waits for its calls, the cancelled ones too.
  ~GrpcRendezvousTest() override { service_.FailAll(absl::UnavailableError("the test ended")); }

  std::future<Values> StartGather(GrpcRendezvous& rendezvous, int global_rank,
                                  std::string value = "value") {
    return std::async(std::launch::async, [&rendezvous, global_rank, value] {
      return rendezvous.AllGather(MakeGroup(global_rank), "handles", value, kTimeout);
    });
  }

  FakeRendezvous service_;
  FakeServer server_{service_};
  RendezvousCounters counters_;
  GrpcRendezvous first_{
      ConnectCoordinator(server_.address()), {ReplicaIndex(2), kEpoch, Incarnation(11)}, counters_};
  GrpcRendezvous second_{
      ConnectCoordinator(server_.address()), {ReplicaIndex(2), kEpoch, Incarnation(13)}, counters_};
};

TEST_F(GrpcRendezvousTest, GathersTheValuesOfAllRanksInGroupOrder) {
  auto first = StartGather(first_, 1, "of rank 1");
  auto second = StartGather(second_, 3, std::string("\0binary", 7));
  service_.AwaitRequests(2);
  service_.Complete();
  const std::vector<std::string> expected = {"of rank 1", std::string("\0binary", 7)};
  for (auto* gather : {&first, &second}) {
    ASSERT_OK_AND_ASSIGN(const auto values, gather->get());
    EXPECT_EQ(values, expected);
  }
}

TEST_F(GrpcRendezvousTest, SaysWhoMeetsAndForHowLong) {
  auto gather = StartGather(first_, 3);
  const v1::AllGatherRequest request = service_.AwaitRequests(1)[0];
  EXPECT_EQ(request.scope().replica(), 2u);
  EXPECT_EQ(request.scope().epoch(), kEpoch.value());
  EXPECT_EQ(request.scope().group_id(), DigestString(MakeGroup(3).id().value()));
  EXPECT_EQ(request.key(), "handles");
  EXPECT_EQ(request.group_rank(), 1u);
  EXPECT_EQ(request.timeout().seconds(), 300);
  EXPECT_EQ(request.incarnation(), 11u);
  first_.Cancel(absl::CancelledError("seen enough"));
}

TEST_F(GrpcRendezvousTest, TellsTheCulpritsOfAFailure) {
  auto gather = StartGather(first_, 1);
  service_.AwaitRequests(1);
  service_.FailAll(MakeError(absl::StatusCode::kUnavailable, "rank 3 (worker w3) is lost",
                             {.reason = ErrorReason::kRankLost,
                              .epoch = kEpoch,
                              .ranks = {GlobalRank(3)},
                              .workers = {"w3"},
                              .phase = "warmup/exchange"}));
  const Values values = gather.get();
  EXPECT_STATUS(values, absl::StatusCode::kUnavailable, "rank 3 (worker w3) is lost");
  const ErrorDetail detail = DetailOf(values.status());
  EXPECT_EQ(detail.reason, ErrorReason::kRankLost);
  EXPECT_EQ(detail.epoch, kEpoch);
  EXPECT_EQ(detail.ranks, std::vector<GlobalRank>{GlobalRank(3)});
  EXPECT_EQ(detail.workers, std::vector<std::string>{"w3"});
  EXPECT_EQ(detail.phase, "warmup/exchange");
}

TEST_F(GrpcRendezvousTest, CancelEndsWaitsNowAndLaterWithItsReason) {
  auto gather = StartGather(first_, 1);
  service_.AwaitRequests(1);
  first_.Cancel(MakeError(absl::StatusCode::kAborted, "rank 3 failed",
                          {.reason = ErrorReason::kRankFailed, .ranks = {GlobalRank(3)}}));
  const Values now = gather.get();
  EXPECT_STATUS(now, absl::StatusCode::kAborted, "rank 3 failed");
  EXPECT_EQ(DetailOf(now.status()).reason, ErrorReason::kRankFailed);
  EXPECT_STATUS(first_.AllGather(MakeGroup(1), "later", "", kTimeout), absl::StatusCode::kAborted,
                "rank 3 failed");
  EXPECT_EQ(service_.AwaitRequests(1).size(), 1u) << "a cancelled rank still calls";
}

TEST_F(GrpcRendezvousTest, TheFirstReasonToCancelStays) {
  first_.Cancel(absl::AbortedError("first"));
  first_.Cancel(absl::InternalError("second"));
  EXPECT_STATUS(first_.AllGather(MakeGroup(1), "key", "", kTimeout), absl::StatusCode::kAborted,
                "first");
}

TEST_F(GrpcRendezvousTest, FailReachesTheCoordinatorWithItsDetailAfterCancelToo) {
  const absl::Status reason =
      MakeError(absl::StatusCode::kResourceExhausted, "wanted 1.9 GiB, 0.7 GiB free",
                {.reason = ErrorReason::kOutOfMemory, .phase = "warmup/allocate"});
  first_.Cancel(reason);
  first_.Fail(MakeGroup(3), reason);
  const v1::AllGatherRequest request = service_.AwaitRequests(1)[0];
  ASSERT_TRUE(request.has_failure());
  EXPECT_EQ(request.group_rank(), 1u);
  const absl::Status told = FailureOf(request.failure());
  EXPECT_STATUS(told, absl::StatusCode::kResourceExhausted, "wanted 1.9 GiB, 0.7 GiB free");
  EXPECT_EQ(DetailOf(told).reason, ErrorReason::kOutOfMemory);
  EXPECT_EQ(DetailOf(told).phase, "warmup/allocate");
}

TEST(GrpcRendezvous, CoordinatorThatIsGoneIsUnavailable) {
  FakeRendezvous service;
  std::string address;
  {
    FakeServer server(service);
    address = server.address();
  }
  RendezvousCounters counters;
  GrpcRendezvous rendezvous(ConnectCoordinator(address), {ReplicaIndex(0), kEpoch, Incarnation(1)},
                            counters);
  EXPECT_STATUS(rendezvous.AllGather(MakeGroup(1), "handles", "", kTimeout),
                absl::StatusCode::kUnavailable, "the coordinator did not answer");
}

}  // namespace
}  // namespace muster
