#include "coordinator/service/membership_service.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/placement.h"
#include "coordinator/service/service_test_support.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::Enlistment W(int index) {
  return EnlistmentOf(TestWorker("w" + std::to_string(index), static_cast<uint64_t>(index) + 1));
}

ExpiryReport ExampleExpiry() {
  return {.replica = ReplicaIndex(2),
          .epoch = Epoch(6),
          .client_id = "bench-7",
          .lease = absl::Minutes(10),
          .sequences = 3,
          .kv_blocks = 12};
}

v1::Heartbeat HeartbeatOf(const ExpiryReport& expiry) {
  v1::Heartbeat heartbeat;
  *heartbeat.add_client_expiries() = ToWire(expiry);
  return heartbeat;
}

v1::ClientExpiry& Expiry(v1::Heartbeat& heartbeat) { return *heartbeat.mutable_client_expiries(0); }

class MembershipServiceTest : public ::testing::Test {
 protected:
  Membership& membership() { return served_.fleet.coordinator().membership(); }
  bool IsMember(const std::string& id) { return membership().Find(id).has_value(); }

  ServedFleet served_{{.cp = 2}};
  TestFleet& fleet_ = served_.fleet;
  std::vector<std::unique_ptr<EnlistedWorker>> workers_;
};

TEST_F(MembershipServiceTest, AnEnlistmentIsAnsweredByAWelcomeAndMakesAMember) {
  EnlistedWorker worker(served_.channel, W(0));
  const v1::EnlistResponse welcome = worker.Read();
  EXPECT_EQ(welcome.welcome().term(), 1u);
  EXPECT_EQ(FromWire(welcome.welcome().heartbeat_interval()), absl::Milliseconds(300));
  const auto view = membership().Find("w0");
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->info.model, TestModel());
  EXPECT_EQ(view->info.address, "127.0.0.1:7001");
}

// A worker that a coordinator of term 6 left serving alone.
v1::Enlistment Serving() {
  WorkerInfo worker = TestWorker("w0", 1);
  const Topology topology = PlanTopology({.config = {},
                                          .term = Term(6),
                                          .slots = {{.epoch = Epoch(3)}},
                                          .inventory = {{.worker_id = worker.worker_id,
                                                         .incarnation = worker.incarnation,
                                                         .address = worker.address,
                                                         .model = worker.model}}})
                                .value()
                                .topologies.front();
  v1::Enlistment wire = EnlistmentOf(worker);
  *wire.add_epochs() = ToWire(EpochReport{.epoch = Epoch(3), .state = WorkerState::kServing});
  *wire.add_serving() = ToWire(topology);
  wire.set_term(6);
  return wire;
}

TEST_F(MembershipServiceTest, WhatAWorkerServesIsAdoptedAndItsWelcomeHasAHigherTerm) {
  EnlistedWorker worker(served_.channel, Serving());
  EXPECT_EQ(worker.Read().welcome().term(), 7u);
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.epoch(), 3u);
  EXPECT_EQ(fleet_.events(EventKind::kAdopted).size(), 1u);
}

TEST_F(MembershipServiceTest, AMalformedTopologyOrTermIsRefusedByItsField) {
  const struct {
    const char* message;
    std::function<void(v1::Enlistment&)> spoil;
  } cases[] = {
      {"topology.epoch is 0", [](auto& e) { e.mutable_serving(0)->set_epoch(0); }},
      {"topology has 0 ranks", [](auto& e) { e.mutable_serving(0)->clear_ranks(); }},
      {"serving has 65 entries",
       [](auto& e) {
         for (int i = 0; i < 64; ++i) *e.add_serving() = e.serving(0);
       }},
      {"term is 18446744073709551615", [](auto& e) { e.set_term(~uint64_t{0}); }},
  };
  for (const auto& c : cases) {
    v1::Enlistment enlistment = Serving();
    c.spoil(enlistment);
    EnlistedWorker worker(served_.channel, enlistment);
    EXPECT_STATUS(worker.End(), kInvalid, c.message);
  }
  EXPECT_EQ(fleet_.coordinator().term(), Term(1));
}

TEST_F(MembershipServiceTest, HeartbeatsReachTheRegistry) {
  EnlistedWorker worker(served_.channel, W(0));
  worker.Read();
  v1::Heartbeat heartbeat;
  heartbeat.set_progress(5);
  *heartbeat.add_epochs() = ToWire(EpochReport{.epoch = Epoch(3), .step = StepNumber(41)});
  ASSERT_TRUE(worker.Heartbeat(heartbeat));
  ASSERT_TRUE(Eventually([&] { return membership().Find("w0")->progress == 5; }));
  EXPECT_EQ(membership().Find("w0")->epochs.at(0).step, StepNumber(41));
}

TEST_F(MembershipServiceTest, AClientThatExpiredIsAnEvent) {
  EnlistedWorker worker(served_.channel, W(0));
  worker.Read();
  ASSERT_TRUE(worker.Heartbeat(HeartbeatOf(ExampleExpiry())));
  ASSERT_TRUE(worker.Heartbeat({}));
  ASSERT_TRUE(Eventually([&] { return !fleet_.events(EventKind::kClientExpired).empty(); }));
  const Event event = fleet_.events(EventKind::kClientExpired).at(0);
  EXPECT_EQ(event.replica, ReplicaIndex(2));
  EXPECT_EQ(event.epoch, Epoch(6));
  EXPECT_EQ(event.worker_id, "w0");
  EXPECT_EQ(event.message,
            "client 'bench-7' was silent for 10 min: 3 sequences and 12 KV blocks were given back");
}

TEST_F(MembershipServiceTest, AMalformedExpiryIsRefusedByItsField) {
  const struct {
    const char* message;
    std::function<void(v1::Heartbeat&)> spoil;
  } cases[] = {
      {"expiry.client_id (bytes) is 0", [](auto& h) { Expiry(h).clear_client_id(); }},
      {"expiry.client_id (bytes) is 129; it can be 1 to 128",
       [](auto& h) { Expiry(h).set_client_id(std::string(129, 'a')); }},
      {"expiry.epoch is 0", [](auto& h) { Expiry(h).set_epoch(0); }},
      {"expiry.replica is 1024", [](auto& h) { Expiry(h).set_replica(1024); }},
      {"expiry.lease: ", [](auto& h) { Expiry(h).clear_lease(); }},
      {"client_expiries has 65 entries; it can have 64",
       [](auto& h) {
         for (int i = 0; i < 64; ++i) *h.add_client_expiries() = ToWire(ExampleExpiry());
       }},
  };
  for (const auto& c : cases) {
    EnlistedWorker worker(served_.channel, W(0));
    worker.Read();
    v1::Heartbeat heartbeat = HeartbeatOf(ExampleExpiry());
    c.spoil(heartbeat);
    worker.Heartbeat(heartbeat);
    EXPECT_STATUS(worker.End(), kInvalid, c.message);
    ASSERT_TRUE(Eventually([&] { return !IsMember("w0"); }));
  }
  EXPECT_TRUE(fleet_.events(EventKind::kClientExpired).empty());
}

TEST_F(MembershipServiceTest, AWorkersLocalAddressIsThatOfItsRank) {
  for (const int i : {0, 1}) {
    v1::Enlistment enlistment = W(i);
    if (i == 1) enlistment.set_local_address("unix:/run/muster/w1.sock");
    workers_.push_back(std::make_unique<EnlistedWorker>(served_.channel, enlistment));
    workers_.back()->Read();
  }
  const ReplicaStatus replica = fleet_.replica();
  ASSERT_TRUE(replica.topology.has_value());
  EXPECT_EQ(replica.topology->ranks.at(0).local_address, "");
  EXPECT_EQ(replica.topology->ranks.at(1).local_address, "unix:/run/muster/w1.sock");
}

TEST_F(MembershipServiceTest, TheEndOfTheStreamIsTheLossOfTheWorker) {
  for (const bool orderly : {true, false}) {
    EnlistedWorker worker(served_.channel, W(0));
    worker.Read();
    orderly ? worker.Leave() : worker.Cancel();
    EXPECT_EQ(worker.End().code(), orderly ? absl::StatusCode::kOk : absl::StatusCode::kCancelled);
    ASSERT_TRUE(Eventually([&] { return !IsMember("w0"); }));
  }
  EXPECT_TRUE(Eventually([&] { return fleet_.events(EventKind::kWorkerLost).size() == 2; }));
}

TEST_F(MembershipServiceTest, ASilentWorkersStreamIsEndedWithTheReason) {
  EnlistedWorker worker(served_.channel, W(0));
  worker.Read();
  fleet_.clock().Advance(absl::Seconds(2));
  fleet_.coordinator().Tick();
  EXPECT_STATUS(worker.End(), absl::StatusCode::kUnavailable, "it sent no heartbeat for 2s");
}

TEST_F(MembershipServiceTest, AnotherProcessUnderALiveNameIsRefused) {
  EnlistedWorker first(served_.channel, W(0));
  first.Read();
  v1::Enlistment second = W(0);
  second.set_incarnation(99);
  EnlistedWorker refused(served_.channel, second);
  EXPECT_STATUS(refused.End(), absl::StatusCode::kAlreadyExists, "w0 is enlisted and alive");
  EXPECT_EQ(membership().Find("w0")->info.incarnation, Incarnation(1));
}

TEST_F(MembershipServiceTest, AMalformedEnlistmentIsRefusedByItsField) {
  const struct {
    const char* message;
    std::function<void(v1::Enlistment&)> spoil;
  } cases[] = {
      {"worker id of 0 bytes", [](auto& e) { e.clear_worker_id(); }},
      {"worker id of 3 bytes", [](auto& e) { e.set_worker_id("a b"); }},
      {"incarnation is 0", [](auto& e) { e.set_incarnation(0); }},
      {"'somewhere' is not host:port", [](auto& e) { e.set_address("somewhere"); }},
      {"address is 'host:0'", [](auto& e) { e.set_address("host:0"); }},
      {"address has 300 bytes", [](auto& e) { e.set_address(std::string(300, 'a')); }},
      {"local address is '127.0.0.1:80'", [](auto& e) { e.set_local_address("127.0.0.1:80"); }},
      {"local address has 129 bytes",
       [](auto& e) { e.set_local_address("unix:/" + std::string(123, 'a')); }},
      {"build has 257 bytes", [](auto& e) { e.set_build(std::string(257, 'b')); }},
      {"domain of 3 bytes; it can be 1 to 128", [](auto& e) { e.set_domain("a b"); }},
      {"model.heads is 0", [](auto& e) { e.mutable_model()->set_heads(0); }},
      {"device.threads", [](auto& e) { e.mutable_device()->set_threads(70000); }},
      {"epochs has 65 entries",
       [](auto& e) {
         for (int i = 0; i < 65; ++i) e.add_epochs();
       }},
  };
  for (const auto& c : cases) {
    v1::Enlistment enlistment = W(0);
    c.spoil(enlistment);
    EnlistedWorker worker(served_.channel, enlistment);
    EXPECT_STATUS(worker.End(), kInvalid, c.message);
  }
  EXPECT_TRUE(membership().Snapshot().empty());
}

TEST_F(MembershipServiceTest, MessagesOutOfTurnEndTheCallAndTheLease) {
  EnlistedWorker twice(served_.channel, W(0));
  twice.Read();
  v1::EnlistRequest again;
  *again.mutable_enlistment() = W(0);
  twice.Write(again);
  EXPECT_STATUS(twice.End(), kInvalid, "every message must be a heartbeat");
  ASSERT_TRUE(Eventually([&] { return !fleet_.events(EventKind::kWorkerLost).empty(); }));
  EXPECT_NE(fleet_.events(EventKind::kWorkerLost).at(0).message.find("malformed message"),
            std::string::npos);

  grpc::ClientContext context;
  const auto stub = v1::Membership::NewStub(served_.channel);
  const auto hasty = stub->Enlist(&context);
  v1::EnlistRequest heartbeat;
  heartbeat.mutable_heartbeat();
  hasty->Write(heartbeat);
  EXPECT_STATUS(FromGrpc(hasty->Finish()), kInvalid, "must be an enlistment");
}

TEST_F(MembershipServiceTest, AnAbortedEpochIsToldWithItsCulprit) {
  EnlistedWorker w0(served_.channel, W(0)), w1(served_.channel, W(1));
  w0.Read();
  w1.Read();
  fleet_.FinishRank(FormingPhase::kAssign, "w1", absl::ResourceExhaustedError("0.7 GiB free"));
  const v1::EnlistResponse notice = w0.Read();
  ASSERT_TRUE(notice.has_epoch_aborted());
  EXPECT_EQ(notice.epoch_aborted().epoch(), 1u);
  const absl::Status reason = FailureOf(notice.epoch_aborted());
  EXPECT_STATUS(reason, absl::StatusCode::kResourceExhausted,
                "rank 1 (worker w1) failed in assign: 0.7 GiB free");
  EXPECT_EQ(DetailOf(reason).workers, std::vector<std::string>{"w1"});
}

TEST_F(MembershipServiceTest, AWorkerThatLeavesIsLetGoWhenItHoldsNothing) {
  EnlistedWorker worker(served_.channel, W(0));
  worker.Read();
  v1::EnlistRequest heartbeat;
  heartbeat.mutable_heartbeat()->mutable_leaving()->mutable_time_left()->set_seconds(30);
  worker.Write(heartbeat);
  EXPECT_TRUE(worker.Read().has_may_leave());
  worker.Leave();
  ASSERT_TRUE(Eventually([&] { return !fleet_.events(EventKind::kWorkerLeft).empty(); }));
  EXPECT_TRUE(fleet_.events(EventKind::kWorkerLost).empty());
}

TEST_F(MembershipServiceTest, AStoppingCoordinatorEndsTheStreamsAndSaysSo) {
  EnlistedWorker worker(served_.channel, W(0));
  worker.Read();
  served_.server->Shutdown(absl::Seconds(30));
  EXPECT_STATUS(worker.End(), absl::StatusCode::kUnavailable, "the coordinator is stopping");
}

TEST(CoordinatorServer, ATakenPortIsNamed) {
  ServedFleet served({});
  TestFleet other({});
  EXPECT_STATUS(CoordinatorServer::Start({.listen = served.server->address()}, other.coordinator()),
                absl::StatusCode::kUnavailable,
                "cannot listen on " + served.server->address().ToString() + ": address in use");
}

}  // namespace
}  // namespace muster
