#include "worker/service/membership_client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "tests/support/status_matchers.h"
#include "worker/service/coordinator_channel.h"
#include "worker/service/expiry_outbox.h"
#include "worker/service/fake_coordinator.h"

namespace muster {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

struct Abort {
  ReplicaIndex replica;
  Epoch epoch;
  absl::Status reason;
};

// What a worker would do with its callbacks; each promise is kept by the first call.
struct RecordingWorker {
  std::atomic<uint64_t> progress = 41;
  std::vector<EpochReport> reports, history;
  ExpiryOutbox expiries;
  std::promise<void> took_expiries;
  std::promise<Term> welcomed;
  std::promise<Abort> aborted;
  std::promise<absl::Status> refused;
  std::atomic<bool> was_welcomed = false, has_taken = false;

  MembershipCallbacks Callbacks() {
    return {.progress = [this] { return progress++; },
            .reports = [this] { return reports; },
            .history = [this] { return history; },
            .take_expiries =
                [this] {
                  auto taken = expiries.Take();
                  if (!taken.empty() && !has_taken.exchange(true)) took_expiries.set_value();
                  return taken;
                },
            .on_welcome =
                [this](Term term) {
                  if (!was_welcomed.exchange(true)) welcomed.set_value(term);
                },
            .on_epoch_aborted =
                [this](ReplicaIndex replica, Epoch epoch, const absl::Status& reason) {
                  aborted.set_value({replica, epoch, reason});
                },
            .on_refused = [this](const absl::Status& status) { refused.set_value(status); }};
  }
};

template <typename T>
std::optional<T> Await(std::promise<T>& promise) {
  auto future = promise.get_future();
  if (future.wait_for(kPatience) != std::future_status::ready) return std::nullopt;
  return future.get();
}

WorkerProfile MakeProfile() {
  return {.worker_id = "w3",
          .incarnation = Incarnation(77),
          .address = "127.0.0.1:4000",
          .device = {.kind = "cpu", .ordinal = DeviceOrdinal(3), .threads = 2},
          .model = {.architecture = "LlamaForCausalLM", .layers = 30, .heads = 9},
          .build = "0.1.0",
          .local_address = "unix:/run/muster/w3.sock"};
}

// Of "bench-7", or so.
ExpiryReport ExpiryOf(const std::string& client) {
  return {.replica = ReplicaIndex(1),
          .epoch = Epoch(6),
          .client_id = client,
          .lease = absl::Minutes(10),
          .sequences = 3,
          .kv_blocks = 12};
}

// Heartbeats, larger together than what a stream takes without being read.
std::vector<EpochReport> LongReports() {
  const EpochReport failed{
      .epoch = Epoch(1), .state = WorkerState::kFailed, .failure = std::string(1024, 'x')};
  return std::vector<EpochReport>(64, failed);
}

TEST(MembershipClient, EnlistsWithItsProfileAndIsWelcomed) {
  FakeMembership coordinator(9);
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  const v1::Enlistment enlistment = coordinator.AwaitEnlistment();
  EXPECT_EQ(enlistment.worker_id(), "w3");
  EXPECT_EQ(enlistment.incarnation(), 77u);
  EXPECT_EQ(enlistment.address(), "127.0.0.1:4000");
  EXPECT_EQ(enlistment.device().ordinal(), 3u);
  EXPECT_EQ(enlistment.model().layers(), 30u);
  EXPECT_EQ(enlistment.build(), "0.1.0");
  EXPECT_EQ(enlistment.local_address(), "unix:/run/muster/w3.sock");
  EXPECT_EQ(Await(worker.welcomed), Term(9));
}

TEST(MembershipClient, AWorkerThatLeavesSaysSoInEveryHeartbeatAndIsLetGo) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipCallbacks callbacks = worker.Callbacks();
  std::atomic<bool> leaves = false;
  std::promise<std::string> let_go;
  callbacks.leaving = [&]() -> std::optional<absl::Duration> {
    if (!leaves) return std::nullopt;
    return absl::Milliseconds(1500);
  };
  callbacks.on_may_leave = [&](const std::string& message) { let_go.set_value(message); };
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), callbacks);
  EXPECT_FALSE(coordinator.AwaitHeartbeats(1).has_leaving());
  leaves = true;
  while (!coordinator.AwaitHeartbeats(1).has_leaving()) std::this_thread::yield();
  EXPECT_EQ(FromWire(coordinator.AwaitHeartbeats(1).leaving().time_left()),
            absl::Milliseconds(1500));
  v1::EnlistResponse notice;
  notice.mutable_may_leave()->set_message("its rank moved to w2");
  coordinator.Send(notice);
  EXPECT_EQ(Await(let_go), "its rank moved to w2");
}

TEST(MembershipClient, AHeartbeatCanBeSentBeforeItIsDue) {
  FakeMembership coordinator;
  coordinator.SetInterval(absl::Hours(1));
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  // The first one follows the welcome.
  for (int count = 1; count <= 3; ++count) {
    coordinator.AwaitHeartbeats(count);
    client.SendHeartbeat();
  }
  coordinator.AwaitHeartbeats(4);
}

TEST(MembershipClient, TheEndOfAStreamIsTold) {
  FakeMembership coordinator;
  coordinator.HoldNextStream();
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipCallbacks callbacks = worker.Callbacks();
  std::promise<void> parted;
  std::atomic<bool> told = false;
  callbacks.on_parted = [&] {
    if (!told.exchange(true)) parted.set_value();
  };
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), callbacks);
  ASSERT_EQ(Await(worker.welcomed), Term(1));
  coordinator.Interrupt();
  EXPECT_EQ(parted.get_future().wait_for(kPatience), std::future_status::ready);
}

TEST(MembershipClient, HeartbeatsCarryProgressAndReports) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  worker.reports = {{.replica = ReplicaIndex(1),
                     .epoch = Epoch(6),
                     .state = WorkerState::kAssigned,
                     .progress = {.phase = "load", .done = 10, .total = 20, .unit = "bytes"}}};
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  const uint64_t earlier = coordinator.AwaitHeartbeats(1).progress();
  const v1::Heartbeat heartbeat = coordinator.AwaitHeartbeats(10);
  EXPECT_GE(earlier, 41u);
  EXPECT_GT(heartbeat.progress(), 41u);
  ASSERT_EQ(heartbeat.epochs_size(), 1);
  ASSERT_OK_AND_ASSIGN(const EpochReport report, FromWire(heartbeat.epochs(0)));
  EXPECT_EQ(report, worker.reports[0]);
}

TEST(MembershipClient, TellsOfEveryClientThatExpiredOnce) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  worker.expiries.Put(ExpiryOf("a"));
  worker.expiries.Put(ExpiryOf("b"));
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  coordinator.AwaitExpiries(2);
  worker.expiries.Put(ExpiryOf("c"));
  coordinator.AwaitExpiries(3);
  coordinator.AwaitHeartbeats(20);
  EXPECT_EQ(coordinator.AwaitExpiries(3), (std::vector<std::string>{"a", "b", "c"}));
}

TEST(MembershipClient, WhatExpiresWithoutACoordinatorIsToldToTheNext) {
  FakeMembership before(1), after(2);
  auto server = std::make_unique<FakeServer>(before);
  const int port = server->port();
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server->address()), MakeProfile(), worker.Callbacks());
  before.AwaitHeartbeats(1);
  server.reset();
  worker.expiries.Put(ExpiryOf("meanwhile"));
  const FakeServer again(after, port);
  after.AwaitExpiries(1);
  after.AwaitHeartbeats(20);
  EXPECT_EQ(after.AwaitExpiries(1), std::vector<std::string>{"meanwhile"});
}

TEST(MembershipClient, WhatABrokenStreamDidNotSendIsToldByTheNextOnce) {
  FakeMembership coordinator;
  coordinator.HoldNextStream();
  FakeServer server(coordinator);
  RecordingWorker worker;
  worker.reports = LongReports();
  worker.expiries.Put(ExpiryOf("a"));
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  ASSERT_EQ(worker.took_expiries.get_future().wait_for(kPatience), std::future_status::ready);
  worker.expiries.Put(ExpiryOf("b"));
  coordinator.Interrupt();
  coordinator.AwaitExpiries(2);
  coordinator.AwaitHeartbeats(20);
  EXPECT_EQ(coordinator.AwaitExpiries(2), (std::vector<std::string>{"a", "b"}));
}

TEST(MembershipClient, EnlistsWithTheEpochsItHasKnown) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  worker.history = {
      {.replica = ReplicaIndex(0), .epoch = Epoch(3), .state = WorkerState::kServing},
      {.replica = ReplicaIndex(1), .epoch = Epoch(9), .state = WorkerState::kEnlisted}};
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  const v1::Enlistment enlistment = coordinator.AwaitEnlistment();
  ASSERT_EQ(enlistment.epochs_size(), 2);
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(const EpochReport report, FromWire(enlistment.epochs(i)));
    EXPECT_EQ(report, worker.history[static_cast<size_t>(i)]);
  }
}

TEST(MembershipClient, HandsOnThatAnEpochWasAborted) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  v1::EnlistResponse notice;
  notice.mutable_epoch_aborted()->set_replica(1);
  notice.mutable_epoch_aborted()->set_epoch(6);
  SetFailure(MakeError(absl::StatusCode::kUnavailable, "rank 0 is lost",
                       {.reason = ErrorReason::kRankLost, .ranks = {GlobalRank(0)}}),
             notice.mutable_epoch_aborted());
  coordinator.Send(notice);
  const std::optional<Abort> abort = Await(worker.aborted);
  ASSERT_TRUE(abort.has_value());
  EXPECT_EQ(abort->replica, ReplicaIndex(1));
  EXPECT_EQ(abort->epoch, Epoch(6));
  EXPECT_STATUS(abort->reason, absl::StatusCode::kUnavailable, "rank 0 is lost");
  EXPECT_EQ(DetailOf(abort->reason).reason, ErrorReason::kRankLost);
}

TEST(MembershipClient, EnlistsAgainWithACoordinatorThatWasRestarted) {
  FakeMembership before(1), after(2);
  auto server = std::make_unique<FakeServer>(before);
  const int port = server->port();
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server->address()), MakeProfile(), worker.Callbacks());
  before.AwaitHeartbeats(1);
  server.reset();
  server = std::make_unique<FakeServer>(after, port);
  EXPECT_EQ(after.AwaitEnlistment().incarnation(), 77u);
  after.AwaitHeartbeats(1);
}

TEST(MembershipClient, WaitsForACoordinatorThatIsNotThereYet) {
  FakeMembership coordinator;
  int port = 0;
  {
    FakeMembership other;
    port = FakeServer(other).port();
  }
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(absl::StrCat("127.0.0.1:", port)), MakeProfile(),
                          worker.Callbacks());
  FakeServer server(coordinator, port);
  coordinator.AwaitHeartbeats(1);
}

TEST(MembershipClient, ReportsARefusalAndDoesNotTryAgain) {
  FakeMembership coordinator;
  coordinator.Refuse(absl::AlreadyExistsError("worker w3 is enlisted with another incarnation"));
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  const std::optional<absl::Status> refused = Await(worker.refused);
  ASSERT_TRUE(refused.has_value());
  EXPECT_STATUS(*refused, absl::StatusCode::kAlreadyExists, "worker w3 is enlisted");
}

TEST(MembershipClient, ReportsThatItsCertificateIsRefused) {
  for (const absl::Status& refusal :
       {absl::PermissionDeniedError("the certificate is that of worker/w4"),
        absl::UnauthenticatedError("the certificate is of trust domain plant")}) {
    FakeMembership coordinator;
    coordinator.Refuse(refusal);
    FakeServer server(coordinator);
    RecordingWorker worker;
    MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(),
                            worker.Callbacks());
    const std::optional<absl::Status> refused = Await(worker.refused);
    ASSERT_TRUE(refused.has_value());
    EXPECT_STATUS(*refused, refusal.code(), "the certificate is");
  }
}

TEST(MembershipClient, TakesAServerWithoutMembershipForARefusal) {
  FakeRendezvous no_coordinator;
  FakeServer server(no_coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  const std::optional<absl::Status> refused = Await(worker.refused);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->code(), absl::StatusCode::kUnimplemented);
}

TEST(MembershipClient, TriesAgainAfterARefusalThatMayPass) {
  FakeMembership coordinator;
  coordinator.Refuse(absl::UnavailableError("shutting down"));
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  coordinator.AwaitEnlistment();
  coordinator.Refuse(absl::OkStatus());
  coordinator.AwaitHeartbeats(1);
}

TEST(MembershipClient, OnceTakenInItOutlastsWhoeverRefusesIt) {
  FakeMembership before;
  auto server = std::make_unique<FakeServer>(before);
  const int port = server->port();
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server->address()), MakeProfile(), worker.Callbacks());
  before.AwaitHeartbeats(1);
  server.reset();

  FakeMembership after;
  after.Refuse(absl::AlreadyExistsError("worker w3 is enlisted with another incarnation"));
  const FakeServer again(after, port);
  after.AwaitEnlistment();
  after.Refuse(absl::OkStatus());
  after.AwaitHeartbeats(1);
}

TEST(MembershipClient, StopEndsTheStreamAndMayBeRepeated) {
  FakeMembership coordinator;
  FakeServer server(coordinator);
  RecordingWorker worker;
  MembershipClient client(ConnectCoordinator(server.address()), MakeProfile(), worker.Callbacks());
  coordinator.AwaitHeartbeats(1);
  client.Stop();
  coordinator.AwaitEnd();
  client.Stop();
}

}  // namespace
}  // namespace muster
