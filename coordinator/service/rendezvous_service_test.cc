#include "coordinator/service/rendezvous_service.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "coordinator/service/service_test_support.h"
#include "proto/muster/v1/rendezvous.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using Values = std::vector<std::string>;

// Two workers of epoch 1, which meet in STAGE[0,1].
class RendezvousServiceTest : public ::testing::Test {
 protected:
  RendezvousServiceTest() {
    served_.fleet.EnlistAll(2);
    topology_ = *served_.fleet.replica().topology;
  }

  template <typename Request>
  Request Scoped(int rank) const {
    Request request;
    request.mutable_scope()->set_epoch(topology_.epoch.value());
    request.mutable_scope()->set_group_id(DigestString(topology_.groups[0].id.value()));
    request.set_key("k");
    request.set_incarnation(topology_.ranks[static_cast<size_t>(rank)].incarnation.value());
    return request;
  }
  v1::AllGatherRequest Gather(int rank, const std::string& value) const {
    auto request = Scoped<v1::AllGatherRequest>(rank);
    request.set_group_rank(static_cast<uint32_t>(rank));
    request.set_value(value);
    *request.mutable_timeout() = ToWire(absl::Minutes(1));
    return request;
  }

  // Until that many calls have arrived and wait.
  void AwaitWaiting(size_t count) {
    const RendezvousBoard& board = served_.fleet.coordinator().rendezvous();
    ASSERT_TRUE(Eventually([&] { return board.waiting() == count; }));
  }

  absl::StatusOr<Values> Call(const v1::AllGatherRequest& request) {
    grpc::ClientContext context;
    return Call(request, &context);
  }
  absl::StatusOr<Values> Call(const v1::AllGatherRequest& request, grpc::ClientContext* context) {
    v1::AllGatherResponse response;
    const grpc::Status status = stub_->AllGather(context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return Values(response.values().begin(), response.values().end());
  }
  absl::Status Publish(const std::string& value) {
    auto request = Scoped<v1::PublishRequest>(0);
    request.set_value(value);
    grpc::ClientContext context;
    v1::PublishResponse response;
    return FromGrpc(stub_->Publish(&context, request, &response));
  }
  absl::StatusOr<std::string> Await(absl::Duration timeout) {
    auto request = Scoped<v1::AwaitRequest>(1);
    *request.mutable_timeout() = ToWire(timeout);
    grpc::ClientContext context;
    v1::AwaitResponse response;
    const grpc::Status status = stub_->Await(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response.value();
  }

  ServedFleet served_{{.cp = 2}};
  Topology topology_;
  const std::unique_ptr<v1::Rendezvous::Stub> stub_ = v1::Rendezvous::NewStub(served_.channel);
};

TEST_F(RendezvousServiceTest, RanksMeetOverTheWire) {
  absl::StatusOr<Values> first;
  std::thread rank0([&] { first = Call(Gather(0, std::string("a\0b", 3))); });
  ASSERT_OK_AND_ASSIGN(const Values second, Call(Gather(1, "")));
  rank0.join();
  ASSERT_OK(first);
  EXPECT_EQ(second, (Values{std::string("a\0b", 3), ""}));
  EXPECT_EQ(*first, second);
}

TEST_F(RendezvousServiceTest, ACallThatItsClientGaveUpCountsAndMayBeRepeated) {
  grpc::ClientContext context;
  absl::StatusOr<Values> given_up;
  std::thread rank0([&] { given_up = Call(Gather(0, "a"), &context); });
  AwaitWaiting(1);
  context.TryCancel();
  rank0.join();
  EXPECT_EQ(given_up.status().code(), absl::StatusCode::kCancelled);
  ASSERT_OK_AND_ASSIGN(const Values second, Call(Gather(1, "b")));
  ASSERT_OK_AND_ASSIGN(const Values first, Call(Gather(0, "a")));
  EXPECT_EQ(first, (Values{"a", "b"}));
  EXPECT_EQ(second, first);
}

TEST_F(RendezvousServiceTest, ARanksFailureReachesTheOthersWithItsDetail) {
  absl::StatusOr<Values> waiting;
  std::thread rank0([&] { waiting = Call(Gather(0, "a")); });
  AwaitWaiting(1);
  v1::AllGatherRequest failure = Gather(1, "");
  failure.clear_value();
  SetFailure(absl::ResourceExhaustedError("0.7 GiB free"), failure.mutable_failure());
  EXPECT_STATUS(Call(failure), absl::StatusCode::kAborted, "0.7 GiB free");
  rank0.join();
  EXPECT_STATUS(waiting, absl::StatusCode::kAborted, "rank 1 (worker w1) failed: 0.7 GiB free");
  EXPECT_EQ(DetailOf(waiting.status()).reason, ErrorReason::kRankFailed);
  EXPECT_EQ(DetailOf(waiting.status()).workers, Values{"w1"});
}

TEST_F(RendezvousServiceTest, MalformedRequestsAreRefusedByTheirField) {
  const struct {
    const char* message;
    std::function<void(v1::AllGatherRequest&)> spoil;
  } cases[] = {
      {"contribution is missing", [](auto& r) { r.clear_contribution(); }},
      {"scope.group_id has 3 bytes", [](auto& r) { r.mutable_scope()->set_group_id("abc"); }},
      {"scope.replica is 4294967295", [](auto& r) { r.mutable_scope()->set_replica(UINT32_MAX); }},
      {"group_rank is 4294967295", [](auto& r) { r.set_group_rank(UINT32_MAX); }},
      {"group rank is 2", [](auto& r) { r.set_group_rank(2); }},
      {"timeout is 0", [](auto& r) { r.clear_timeout(); }},
      {"key has 0 bytes", [](auto& r) { r.clear_key(); }},
  };
  for (const auto& c : cases) {
    v1::AllGatherRequest request = Gather(0, "a");
    c.spoil(request);
    EXPECT_STATUS(Call(request), kInvalid, c.message);
  }
  v1::AllGatherRequest stale = Gather(0, "a");
  stale.mutable_scope()->set_epoch(7);
  EXPECT_STATUS(Call(stale), absl::StatusCode::kFailedPrecondition, "epoch 7 of replica 0");
}

TEST_F(RendezvousServiceTest, APublishedValueIsAwaited) {
  absl::StatusOr<std::string> awaited;
  std::thread rank1([&] { awaited = Await(absl::Minutes(1)); });
  AwaitWaiting(1);
  EXPECT_OK(Publish("id"));
  rank1.join();
  ASSERT_OK(awaited);
  EXPECT_EQ(*awaited, "id");
  EXPECT_STATUS(Publish("other"), absl::StatusCode::kAlreadyExists, "'k' has been published");
  EXPECT_STATUS(Await(absl::ZeroDuration()), kInvalid, "timeout is 0");
}

TEST_F(RendezvousServiceTest, AStoppingCoordinatorEndsTheWaits) {
  absl::StatusOr<Values> waiting;
  std::thread rank0([&] { waiting = Call(Gather(0, "a")); });
  AwaitWaiting(1);
  served_.server->Shutdown(absl::Seconds(30));
  rank0.join();
  EXPECT_STATUS(waiting, absl::StatusCode::kUnavailable, "the coordinator is stopping");
}

}  // namespace
}  // namespace muster
