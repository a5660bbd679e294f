#include "coordinator/service/fleet_service.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "coordinator/service/service_test_support.h"
#include "proto/muster/v1/fleet.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

class FleetServiceTest : public ::testing::Test {
 protected:
  using Events = std::unique_ptr<grpc::ClientReader<v1::WatchEventsResponse>>;

  Events WatchEvents(uint64_t from, bool no_follow) {
    v1::WatchEventsRequest request;
    request.set_from_sequence(from);
    request.set_no_follow(no_follow);
    return stub_->WatchEvents(&context_, request);
  }
  std::unique_ptr<grpc::ClientReader<v1::WatchTopologyResponse>> WatchTopology() {
    return stub_->WatchTopology(&context_, v1::WatchTopologyRequest());
  }

  ServedFleet served_{{.cp = 2}};
  TestFleet& fleet_ = served_.fleet;
  const std::unique_ptr<v1::Fleet::Stub> stub_ = v1::Fleet::NewStub(served_.channel);
  grpc::ClientContext context_;
};

TEST_F(FleetServiceTest, TheTopologyOfAServingFleetHasAllItsFacts) {
  fleet_.EnlistAll(2);
  fleet_.Serve();
  v1::GetTopologyResponse response;
  ASSERT_TRUE(stub_->GetTopology(&context_, v1::GetTopologyRequest(), &response).ok());
  EXPECT_EQ(response.term(), 1u);
  EXPECT_EQ(response.config().cp(), 2u);
  ASSERT_EQ(response.replicas_size(), 1);
  const v1::ReplicaStatus& replica = response.replicas(0);
  EXPECT_EQ(replica.state(), v1::REPLICA_STATE_SERVING);
  EXPECT_FALSE(replica.has_failure());
  EXPECT_EQ(replica.topology().epoch(), 1u);
  EXPECT_EQ(replica.topology().ranks(1).worker_id(), "w1");
  EXPECT_EQ(replica.ledgers(1).kv_blocks(), 10u);
  EXPECT_EQ(replica.ledgers(1).entries(0).tag(), "kv");
  EXPECT_EQ(replica.phases_size(), 5);
  EXPECT_TRUE(replica.has_serving_since());
}

TEST_F(FleetServiceTest, AWaitingReplicaSaysForWhat) {
  fleet_.EnlistAll(1);
  v1::GetTopologyResponse response;
  ASSERT_TRUE(stub_->GetTopology(&context_, v1::GetTopologyRequest(), &response).ok());
  EXPECT_EQ(response.replicas(0).state(), v1::REPLICA_STATE_WAITING);
  EXPECT_STATUS(FailureOf(response.replicas(0).failure()), absl::StatusCode::kFailedPrecondition,
                "2 needed, 1 free");
  EXPECT_FALSE(response.replicas(0).has_topology());
  EXPECT_FALSE(response.replicas(0).has_serving_since());
}

TEST_F(FleetServiceTest, WorkersAreListedWithTheirRanksOrWithout) {
  fleet_.EnlistAll(3);
  fleet_.Heartbeat("w1", 7,
                   {{.epoch = Epoch(1),
                     .state = WorkerState::kLoaded,
                     .progress = {"load", 3, 9, "bytes"},
                     .kv_blocks_total = 5,
                     .tokens = 1456,
                     .queued_requests = 7}});
  v1::ListWorkersResponse response;
  ASSERT_TRUE(stub_->ListWorkers(&context_, v1::ListWorkersRequest(), &response).ok());
  ASSERT_EQ(response.workers_size(), 3);
  const v1::WorkerStatus& ranked = response.workers(1);
  EXPECT_EQ(ranked.worker_id(), "w1");
  EXPECT_EQ(ranked.rank(), 1u);
  EXPECT_EQ(ranked.epoch(), 1u);
  EXPECT_EQ(ranked.state(), v1::WORKER_STATE_LOADED);
  EXPECT_EQ(ranked.progress().total(), 9u);
  EXPECT_EQ(ranked.kv_blocks_total(), 5u);
  EXPECT_EQ(ranked.tokens(), 1456u);
  EXPECT_EQ(ranked.queued_requests(), 7u);
  EXPECT_EQ(ranked.model().name(), "llama-test");
  EXPECT_EQ(ranked.device().kind(), "cpu");
  EXPECT_FALSE(response.workers(2).has_rank());
  EXPECT_EQ(response.workers(2).state(), v1::WORKER_STATE_ENLISTED);
}

TEST_F(FleetServiceTest, APlanIsShownOrRefusedWithItsReason) {
  fleet_.EnlistAll(4);
  v1::PlanTopologyRequest request;
  *request.mutable_config() = ToWire(ParallelConfig{.tp = 2, .cp = 2});
  v1::PlanTopologyResponse plan;
  ASSERT_TRUE(stub_->PlanTopology(&context_, request, &plan).ok());
  ASSERT_EQ(plan.topologies_size(), 1);
  EXPECT_EQ(plan.topologies(0).ranks_size(), 4);
  ASSERT_EQ(plan.footprints_size(), 4);
  EXPECT_GT(plan.footprints(3).weight_bytes(), 0u);
  EXPECT_GT(plan.footprints(3).kv_block_bytes(), 0u);

  const auto refusal = [&](const ParallelConfig& config) {
    *request.mutable_config() = ToWire(config);
    grpc::ClientContext context;
    return FromGrpc(stub_->PlanTopology(&context, request, &plan));
  };
  EXPECT_STATUS(refusal({.tp = 5}), absl::StatusCode::kInvalidArgument, "which 5 does not divide");
  EXPECT_EQ(DetailOf(refusal({.tp = 5})).reason, ErrorReason::kPlanRefused);
  EXPECT_EQ(DetailOf(refusal({.cp = 8})).reason, ErrorReason::kNotEnoughWorkers);
  // A size of 0 stays as it is.
  EXPECT_OK(refusal({.cp = 0}));
}

TEST_F(FleetServiceTest, AWatcherOfTheTopologySeesItAtOnceAndThenEveryLastState) {
  const auto watch = WatchTopology();
  v1::WatchTopologyResponse now;
  ASSERT_TRUE(watch->Read(&now));
  EXPECT_EQ(now.replicas(0).state(), v1::REPLICA_STATE_WAITING);
  fleet_.EnlistAll(2);
  fleet_.Serve();
  int messages = 0;
  while (now.replicas(0).state() != v1::REPLICA_STATE_SERVING) {
    const std::string before = now.SerializeAsString();
    ASSERT_TRUE(watch->Read(&now));
    EXPECT_NE(now.SerializeAsString(), before) << "the same twice";
    ++messages;
  }
  EXPECT_LE(messages, 8);
  fleet_.Lose("w1");
  ASSERT_TRUE(watch->Read(&now));
  EXPECT_EQ(now.replicas(0).state(), v1::REPLICA_STATE_FAILED);
  context_.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(FleetServiceTest, EventsAreReadFromASequenceOnAndNoFurtherWhenAsked) {
  fleet_.EnlistAll(2);
  const Events events = WatchEvents(2, /*no_follow=*/true);
  std::vector<std::string> messages;
  for (v1::WatchEventsResponse event; events->Read(&event);) {
    EXPECT_EQ(event.sequence(), messages.size() + 2);
    messages.push_back(event.message());
  }
  EXPECT_TRUE(events->Finish().ok());
  EXPECT_EQ(messages, (std::vector<std::string>{"worker w1 enlisted with llama-test in float32",
                                                "planned tp=1 cp=2 on w0 w1"}));
}

TEST_F(FleetServiceTest, AFollowerGetsEventsAsTheyHappen) {
  const Events events = WatchEvents(0, /*no_follow=*/false);
  v1::WatchEventsResponse event;
  for (int i = 0; i < 3; ++i) {
    fleet_.Enlist("w" + std::to_string(i));
    do {
      ASSERT_TRUE(events->Read(&event));
    } while (event.kind() != v1::EVENT_KIND_WORKER_ENLISTED);
    EXPECT_EQ(event.worker_id(), "w" + std::to_string(i));
    EXPECT_FALSE(event.has_rank());
  }
  fleet_.FinishRank(FormingPhase::kAssign, "w1", absl::InternalError("no"));
  while (event.kind() != v1::EVENT_KIND_EPOCH_FAILED) ASSERT_TRUE(events->Read(&event));
  EXPECT_EQ(event.rank(), 1u);
  EXPECT_EQ(event.epoch(), 1u);
  EXPECT_EQ(event.phase(), "assign");
}

TEST_F(FleetServiceTest, AClientThatExpiredIsAnEventOfItsReplicaAndEpoch) {
  fleet_.Enlist("w0");
  fleet_.ReportExpiry("w0", {.epoch = Epoch(6), .client_id = "c", .lease = absl::Seconds(1)});
  const Events events = WatchEvents(2, /*no_follow=*/true);
  v1::WatchEventsResponse event;
  ASSERT_TRUE(events->Read(&event));
  EXPECT_EQ(event.kind(), v1::EVENT_KIND_CLIENT_EXPIRED);
  EXPECT_TRUE(event.has_replica());
  EXPECT_EQ(event.replica(), 0u);
  EXPECT_EQ(event.epoch(), 6u);
  EXPECT_EQ(event.worker_id(), "w0");
}

TEST_F(FleetServiceTest, AStoppingCoordinatorEndsTheWatchers) {
  const Events events = WatchEvents(0, /*no_follow=*/false);
  fleet_.Enlist("w0");
  v1::WatchEventsResponse event;
  ASSERT_TRUE(events->Read(&event));
  served_.server->Shutdown(absl::Seconds(30));
  EXPECT_FALSE(events->Read(&event));
  EXPECT_STATUS(FromGrpc(events->Finish()), absl::StatusCode::kUnavailable, "is stopping");
}

// Calls of a fleet that serves, whose leader is asked what its cache holds first.
class FleetServiceOperationTest : public FleetServiceTest {
 protected:
  using Scaling = std::unique_ptr<grpc::ClientReader<v1::ScaleContextParallelResponse>>;

  FleetServiceOperationTest() {
    fleet_.EnlistAll(4);
    fleet_.Serve();
  }

  static v1::ScaleContextParallelRequest ScaleTo(uint32_t cp, const std::string& id = "op1") {
    v1::ScaleContextParallelRequest request;
    request.set_request_id(id);
    request.set_cp(cp);
    return request;
  }
  // How a call ends that is refused before it asks anybody.
  absl::Status Refusal(const v1::ScaleContextParallelRequest& request) {
    grpc::ClientContext context;
    const Scaling scaling = stub_->ScaleContextParallel(&context, request);
    v1::ScaleContextParallelResponse response;
    EXPECT_FALSE(scaling->Read(&response)) << response.DebugString();
    return FromGrpc(scaling->Finish());
  }
  void AnswerTheSurvey() {
    ASSERT_TRUE(Eventually([&] { return fleet_.DescribeCaches() > 0; }));
  }
};

TEST_F(FleetServiceOperationTest, ScalingIsStreamedFromItsStartToItsEnd) {
  const Scaling scaling = stub_->ScaleContextParallel(&context_, ScaleTo(4));
  AnswerTheSurvey();
  v1::ScaleContextParallelResponse response;
  ASSERT_TRUE(scaling->Read(&response));
  EXPECT_EQ(response.operation().id(), "op1");
  EXPECT_EQ(response.operation().kind(), v1::OPERATION_KIND_SCALE_CONTEXT_PARALLEL);
  EXPECT_EQ(response.operation().state(), v1::OPERATION_STATE_RUNNING);
  EXPECT_EQ(response.operation().summary(), "cp 2 to 4");
  fleet_.ReportProgress(FormingPhase::kAssign, "w3", {"assign", 1, 2, "bytes"});
  fleet_.coordinator().Tick();
  while (response.operation().replicas(0).ranks(3).progress().total() != 2) {
    ASSERT_TRUE(scaling->Read(&response));
  }
  fleet_.FormUntil(FormingPhase::kActivate);
  fleet_.FinishRank(
      FormingPhase::kActivate, "w0",
      PhaseResult{.takeover = {.pause = absl::Milliseconds(4), .kv_blocks_moved = 21}});
  fleet_.Release();
  while (response.operation().state() == v1::OPERATION_STATE_RUNNING) {
    ASSERT_TRUE(scaling->Read(&response));
  }
  EXPECT_EQ(response.operation().state(), v1::OPERATION_STATE_DONE);
  EXPECT_EQ(response.operation().replicas(0).stage(), v1::RESIZE_STAGE_DONE);
  EXPECT_EQ(response.operation().replicas(0).kv_blocks_moved(), 21u);
  EXPECT_EQ(FromWire(response.operation().replicas(0).pause()), absl::Milliseconds(4));
  EXPECT_FALSE(scaling->Read(&response)) << "the last state comes once";
  EXPECT_OK(FromGrpc(scaling->Finish()));
}

TEST_F(FleetServiceOperationTest, AnOperationGoesOnWithoutItsCallerAndWhoComesBackSeesItsEnd) {
  {
    grpc::ClientContext context;
    const Scaling scaling = stub_->ScaleContextParallel(&context, ScaleTo(4));
    AnswerTheSurvey();
    v1::ScaleContextParallelResponse response;
    ASSERT_TRUE(scaling->Read(&response));
    context.TryCancel();
    scaling->Finish();
  }
  fleet_.Lose("w3");
  fleet_.Release();
  const Scaling scaling = stub_->ScaleContextParallel(&context_, ScaleTo(4));
  v1::ScaleContextParallelResponse response;
  ASSERT_TRUE(scaling->Read(&response));
  EXPECT_EQ(response.operation().state(), v1::OPERATION_STATE_ROLLED_BACK);
  EXPECT_STATUS(FailureOf(response.operation().failure()), absl::StatusCode::kUnavailable,
                "rank 3 (worker w3) was lost in assign");
  EXPECT_OK(FromGrpc(scaling->Finish())) << "a failure is a state, not an error";
}

TEST_F(FleetServiceOperationTest, WhatIsWrongWithARequestIsAnErrorOfTheCall) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_STATUS(Refusal(ScaleTo(0)), kInvalid, "cannot plan cp=0");
  EXPECT_STATUS(Refusal(ScaleTo(4, "")), kInvalid, "request_id has 0 bytes");
  EXPECT_STATUS(Refusal(ScaleTo(4, std::string(65, 'a'))), kInvalid, "request_id has 65 bytes");
  v1::ScaleContextParallelRequest request = ScaleTo(4);
  *request.mutable_timeout() = ToWire(absl::Hours(2));
  EXPECT_STATUS(Refusal(request), kInvalid, "2h");
  v1::DrainWorkerRequest drain;
  drain.set_request_id("op1");
  drain.set_worker_id("a b");
  const auto draining = stub_->DrainWorker(&context_, drain);
  EXPECT_STATUS(FromGrpc(draining->Finish()), kInvalid, "worker id of 3 bytes");
}

TEST_F(FleetServiceOperationTest, WhatIsWrongWithATopologyIsNamedByItsField) {
  const struct {
    const char* message;
    std::function<void(v1::ApplyTopologyRequest&)> spoil;
  } cases[] = {
      {"tp is 1025", [](auto& r) { r.mutable_config()->set_tp(1025); }},
      {"buckets has 33 entries",
       [](auto& r) {
         for (int i = 0; i < 33; ++i) r.add_buckets(1);
       }},
      {"buckets[0] is 1024; buckets are powers of two up to 512",
       [](auto& r) { r.add_buckets(1024); }},
      {"buckets[0] is 3", [](auto& r) { r.add_buckets(3); }},
      {"buckets[0] is 0", [](auto& r) { r.add_buckets(0); }},
      {"buckets[1] is 8; buckets are powers of two up to 512, largest first",
       [](auto& r) {
         r.add_buckets(8);
         r.add_buckets(8);
       }},
      {"drop names a sequence as CLIENT/SEQUENCE", [](auto& r) { r.add_drop("chat"); }},
      {"drop has 4097 entries",
       [](auto& r) {
         for (int i = 0; i < 4097; ++i) r.add_drop("*");
       }},
  };
  for (const auto& c : cases) {
    v1::ApplyTopologyRequest request;
    request.set_request_id("op1");
    c.spoil(request);
    grpc::ClientContext context;
    const auto applying = stub_->ApplyTopology(&context, request);
    EXPECT_STATUS(FromGrpc(applying->Finish()), absl::StatusCode::kInvalidArgument, c.message);
  }
}

TEST_F(FleetServiceOperationTest, APlanThatIsRefusedIsAnErrorOfTheCall) {
  fleet_.Lose("w3");
  const Scaling scaling = stub_->ScaleContextParallel(&context_, ScaleTo(4));
  AnswerTheSurvey();
  v1::ScaleContextParallelResponse response;
  EXPECT_FALSE(scaling->Read(&response));
  const absl::Status refused = FromGrpc(scaling->Finish());
  EXPECT_STATUS(refused, absl::StatusCode::kFailedPrecondition, "it needs 4 workers");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kNotEnoughWorkers);
}

TEST_F(FleetServiceOperationTest, OperationsAreListedAndCancelled) {
  fleet_.StartScale(4);
  v1::CancelOperationRequest request;
  request.set_operation_id("op1");
  v1::CancelOperationResponse cancelled;
  ASSERT_TRUE(stub_->CancelOperation(&context_, request, &cancelled).ok());
  fleet_.Release();
  v1::ListOperationsResponse list;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->ListOperations(&context, v1::ListOperationsRequest(), &list).ok());
  ASSERT_EQ(list.operations_size(), 1);
  EXPECT_EQ(list.operations(0).state(), v1::OPERATION_STATE_ROLLED_BACK);
  EXPECT_EQ(list.operations(0).failure().detail().reason(), v1::ERROR_REASON_OPERATION_CANCELLED);
  request.set_operation_id("op9");
  grpc::ClientContext another;
  EXPECT_STATUS(FromGrpc(stub_->CancelOperation(&another, request, &cancelled)),
                absl::StatusCode::kNotFound, "there is no operation 'op9'.");
}

TEST_F(FleetServiceOperationTest, ADryRunIsOfTheBucketsAndRefusedAsTheOperationWouldBe) {
  v1::PlanTopologyRequest request;
  request.add_buckets(8);
  v1::PlanTopologyResponse plan;
  const auto call = [&] {
    grpc::ClientContext context;
    std::thread leader([&] { AnswerTheSurvey(); });
    const grpc::Status status = stub_->PlanTopology(&context, request, &plan);
    leader.join();
    return FromGrpc(status);
  };
  ASSERT_OK(call());
  ASSERT_EQ(plan.changes_size(), 1);
  EXPECT_EQ(plan.changes(0).note(), "buckets 8");
  request.mutable_config()->set_cp(8);
  EXPECT_STATUS(call(), absl::StatusCode::kInvalidArgument, "room is kept for cp 1 to 4");
  request.add_drop("s1");
  grpc::ClientContext context;
  EXPECT_STATUS(FromGrpc(stub_->PlanTopology(&context, request, &plan)),
                absl::StatusCode::kInvalidArgument, "drop names a sequence as CLIENT/SEQUENCE");
}

TEST_F(FleetServiceOperationTest, ADryRunTellsWhatTheChangeTakes) {
  v1::PlanTopologyRequest request;
  request.mutable_config()->set_cp(4);
  v1::PlanTopologyResponse plan;
  std::thread leader([&] { AnswerTheSurvey(); });
  const grpc::Status status = stub_->PlanTopology(&context_, request, &plan);
  leader.join();
  ASSERT_OK(FromGrpc(status));
  ASSERT_EQ(plan.changes_size(), 1);
  EXPECT_EQ(plan.changes(0).from().cp(), 2u);
  EXPECT_EQ(plan.changes(0).to().cp(), 4u);
  ASSERT_EQ(plan.changes(0).flows_size(), 2);
  EXPECT_EQ(plan.changes(0).flows(1).to_rank(), 3u);
  EXPECT_EQ(plan.changes(0).ranks(2).role(), v1::RankChange::ROLE_RECRUIT);
  EXPECT_GT(FromWire(plan.changes(0).predicted_pause()), absl::ZeroDuration());
}

}  // namespace
}  // namespace muster
