#include "worker/engine/worker_epochs.h"

#include <gtest/gtest.h>

#include <future>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"

namespace muster {
namespace {

using testing::CallOf;
using testing::FaultyRendezvous;
using testing::Generate;
using testing::kTestReplica;
using testing::kTestTerm;
using testing::LocalRendezvousBoard;
using testing::RunOnAll;
using testing::Serve;
using testing::StartForward;
using testing::TestWorker;
using testing::TopologyOf;

constexpr Epoch kFirst{1}, kSecond{2};
constexpr ParallelConfig kTwo{.cp = 2};
constexpr EpochCommand kPhases[] = {EpochCommand::kLoad, EpochCommand::kWarmup,
                                    EpochCommand::kCapture, EpochCommand::kActivate,
                                    EpochCommand::kDrain};

// Owns what it wraps.
class OwningFault : public Rendezvous {
 public:
  OwningFault(std::unique_ptr<Rendezvous> inner, FaultyRendezvous::Plan plan)
      : inner_(std::move(inner)), faulty_(*inner_, std::move(plan)) {}

  absl::StatusOr<std::vector<std::string>> AllGather(const Group& group, absl::string_view key,
                                                     absl::string_view value,
                                                     absl::Duration timeout) override {
    return faulty_.AllGather(group, key, value, timeout);
  }
  void Fail(const Group& group, const absl::Status& reason) override {
    faulty_.Fail(group, reason);
  }
  void Cancel(const absl::Status& reason) override { faulty_.Cancel(reason); }

 private:
  const std::unique_ptr<Rendezvous> inner_;
  FaultyRendezvous faulty_;
};

class WorkerEpochsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-mha12"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    worker_.emplace(0, board_, model_);
    other_.emplace(1, board_, model_);
  }

  WorkerEpochs& epochs() { return worker_->epochs(); }
  std::vector<TestWorker*> both() { return {&*worker_, &*other_}; }

  LocalRendezvousBoard board_;
  Golden golden_;
  ModelSource model_;
  std::optional<TestWorker> worker_, other_;
};

TEST_F(WorkerEpochsTest, AnEpochLivesFromAssignToRelease) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  EXPECT_EQ(worker_->StateOf(kFirst), WorkerState::kAssigned);
  const uint64_t before = epochs().progress();
  ASSERT_OK_AND_ASSIGN(const EpochOutcome loaded,
                       worker_->Start(EpochCommand::kLoad, kFirst)->Result());
  ASSERT_EQ(loaded.ledger.size(), 1u);
  EXPECT_EQ(loaded.ledger[0].tag, "weights");
  EXPECT_GT(epochs().progress(), before);
  ASSERT_OK(worker_->Run(EpochCommand::kWarmup, kFirst));
  const auto capture = worker_->Start(EpochCommand::kCapture, kFirst);
  ASSERT_OK_AND_ASSIGN(const EpochOutcome captured, capture->Result());
  EXPECT_EQ(capture->phases(),
            (std::vector<std::string>{"capture/graphs", "capture/kv", "capture/agree"}));
  EXPECT_EQ(captured.captured.buckets, (std::vector<int>{4, 1}));
  EXPECT_GT(captured.captured.kv_blocks, 0);
  EXPECT_EQ(captured.captured.agreement_digest.size(), 16u);
  EXPECT_STATUS(epochs().Serving(), absl::StatusCode::kUnavailable, "AGREED");
  ASSERT_OK(worker_->Run(EpochCommand::kActivate, kFirst));
  ASSERT_OK_AND_ASSIGN(auto serving, epochs().Serving());
  ASSERT_OK_AND_ASSIGN(const auto tokens, Generate(serving->engine(), golden_, 8));
  EXPECT_EQ(tokens, std::vector<int>(golden_.tokens.begin(), golden_.tokens.begin() + 8));
  serving.reset();
  ASSERT_OK(worker_->Run(EpochCommand::kDrain, kFirst));
  EXPECT_STATUS(epochs().Serving(), absl::StatusCode::kUnavailable, "DRAINING");
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
  EXPECT_TRUE(epochs().Reports().empty());
  EXPECT_STATUS(epochs().Serving(), absl::StatusCode::kUnavailable, "holds no epoch");
  EXPECT_EQ(worker_->events(), (std::vector<std::string>{"activated 1", "ended 1"}));
}

TEST_F(WorkerEpochsTest, TwoWorkersServeOneReplica) {
  ASSERT_OK(Serve(both(), kFirst, kTwo));
  ASSERT_OK_AND_ASSIGN(const auto serving, epochs().Serving());
  ASSERT_OK_AND_ASSIGN(const auto tokens, Generate(serving->engine(), golden_, 24));
  EXPECT_EQ(tokens, golden_.tokens);
  const auto follower = other_->epochs().Serving();
  EXPECT_STATUS(follower, absl::StatusCode::kFailedPrecondition,
                "requests go to rank 0, worker w0");
  EXPECT_EQ(DetailOf(follower.status()).workers, std::vector<std::string>{"w0"});
  EXPECT_FALSE(DetailOf(follower.status()).retriable);
}

TEST_F(WorkerEpochsTest, WhatIsNotServingMayBeTriedAgain) {
  const absl::Status none = epochs().Serving().status();
  EXPECT_TRUE(DetailOf(none).retriable);
  EXPECT_EQ(DetailOf(none).reason, ErrorReason::kWrongState);
}

TEST_F(WorkerEpochsTest, TheSameCallJoinsTheOneThatIsRunning) {
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kFirst, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kFirst));
  const auto first = worker_->Start(EpochCommand::kWarmup, kFirst);
  first->AwaitPhase("warmup/vote");
  const auto second = worker_->Start(EpochCommand::kWarmup, kFirst);
  EXPECT_EQ(second->phases(), std::vector<std::string>{"warmup/vote"});
  ASSERT_OK(other_->Run(EpochCommand::kWarmup, kFirst));
  ASSERT_OK_AND_ASSIGN(const EpochOutcome outcome, first->Result());
  ASSERT_OK_AND_ASSIGN(const EpochOutcome joined, second->Result());
  EXPECT_EQ(joined.ledger, outcome.ledger);
  EXPECT_EQ(second->phases().back(), "warmup/relay");
}

TEST_F(WorkerEpochsTest, TheSameCallRepeatsItsResult) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  EXPECT_OK(worker_->Assign(kFirst, {}));
  ASSERT_OK_AND_ASSIGN(const EpochOutcome loaded,
                       worker_->Start(EpochCommand::kLoad, kFirst)->Result());
  ASSERT_OK(worker_->Run(EpochCommand::kWarmup, kFirst));
  ASSERT_OK_AND_ASSIGN(const EpochOutcome again,
                       worker_->Start(EpochCommand::kLoad, kFirst)->Result());
  EXPECT_EQ(again.ledger, loaded.ledger);
  EXPECT_EQ(worker_->StateOf(kFirst), WorkerState::kWarm) << "the repeated load changed the state";
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
  EXPECT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
}

TEST_F(WorkerEpochsTest, AnotherCallIsNotTheSame) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  EXPECT_STATUS(epochs().Assign(CallOf(kFirst, "other"), {TopologyOf(kFirst, {}), GlobalRank(0)}),
                absl::StatusCode::kFailedPrecondition, "assigned already");
  EXPECT_STATUS(
      epochs().Assign(CallOf(kFirst, "assign"), {TopologyOf(kFirst, kTwo), GlobalRank(0)}),
      absl::StatusCode::kInvalidArgument, "another assignment");
  ASSERT_OK(worker_->Run(EpochCommand::kLoad, kFirst));
  EXPECT_STATUS(worker_->Start(EpochCommand::kLoad, kFirst, "other")->Result(),
                absl::StatusCode::kFailedPrecondition, "it is LOADED; this needs ASSIGNED");
  EXPECT_STATUS(worker_->Start(EpochCommand::kWarmup, kFirst, "load")->Result(),
                absl::StatusCode::kInvalidArgument, "is that of a load");
}

TEST_F(WorkerEpochsTest, NothingElseStartsWhileAPhaseIsRunning) {
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kFirst, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kFirst));
  const auto warmup = worker_->Start(EpochCommand::kWarmup, kFirst);
  warmup->AwaitPhase("warmup/vote");
  EXPECT_STATUS(worker_->Start(EpochCommand::kWarmup, kFirst, "other")->Result(),
                absl::StatusCode::kFailedPrecondition, "its warmup is still running");
  EXPECT_STATUS(worker_->Run(EpochCommand::kCapture, kFirst), absl::StatusCode::kFailedPrecondition,
                "its warmup is still running");
}

TEST_F(WorkerEpochsTest, CommandsOutOfOrderAreRefusedAndChangeNothing) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  for (size_t next = 0; next < std::size(kPhases); ++next) {
    const WorkerState state = worker_->StateOf(kFirst);
    for (size_t i = 0; i < std::size(kPhases); ++i) {
      if (i == next) continue;
      SCOPED_TRACE(absl::StrCat(EpochCommandName(kPhases[i]), " in ", WorkerStateName(state)));
      const auto refused = worker_->Start(kPhases[i], kFirst, absl::StrCat("wrong ", next, i));
      EXPECT_STATUS(refused->Result(), absl::StatusCode::kFailedPrecondition,
                    WorkerStateName(state));
      EXPECT_EQ(DetailOf(refused->Result().status()).reason, ErrorReason::kWrongState);
      EXPECT_EQ(worker_->StateOf(kFirst), state);
    }
    ASSERT_OK(worker_->Run(kPhases[next], kFirst));
  }
  EXPECT_OK(worker_->Start(EpochCommand::kDrain, kFirst, "again")->Result());
}

TEST_F(WorkerEpochsTest, CallsOfALowerTermAreRefused) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  epochs().NoteTerm(Term(kTestTerm.value() + 1));
  for (const EpochCommand command : {EpochCommand::kLoad, EpochCommand::kRelease}) {
    const absl::Status refused = worker_->Run(command, kFirst);
    EXPECT_STATUS(refused, absl::StatusCode::kFailedPrecondition, "the call is of term 3");
    EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kStaleEpoch);
  }
  EXPECT_STATUS(worker_->Assign(kSecond, {}), absl::StatusCode::kFailedPrecondition,
                "term 4 has taken over");
  EXPECT_EQ(worker_->StateOf(kFirst), WorkerState::kAssigned) << "a higher term drops nothing";
}

TEST_F(WorkerEpochsTest, ACallOfAHigherTermFencesTheLowerOnes) {
  ASSERT_OK(worker_->Assign(kFirst, {}));
  const auto pending = std::make_shared<testing::PendingCall>();
  EpochCall call = CallOf(kFirst, "load");
  call.term = Term(kTestTerm.value() + 1);
  epochs().Run(EpochCommand::kLoad, call, absl::Seconds(1), pending->Watcher());
  ASSERT_OK(pending->Result());
  EXPECT_STATUS(worker_->Run(EpochCommand::kWarmup, kFirst), absl::StatusCode::kFailedPrecondition,
                "term 4 has taken over");
}

TEST_F(WorkerEpochsTest, AnEpochNumberIsTakenOnce) {
  const auto expect_taken = [this](Epoch epoch) {
    const absl::Status status = worker_->Assign(epoch, {});
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  absl::StrCat("epoch ", epoch.value(), " of replica 0 cannot be assigned"));
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kStaleEpoch);
  };
  ASSERT_OK(worker_->Assign(Epoch(5), {}));
  expect_taken(Epoch(4));
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, Epoch(5)));
  expect_taken(Epoch(5));
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, Epoch(7))) << "it overtook its assignment";
  expect_taken(Epoch(7));
  EXPECT_OK(worker_->Assign(Epoch(8), {}));
}

TEST_F(WorkerEpochsTest, AnEpochThatIsNotHeldIsStale) {
  for (const EpochCommand command : kPhases) {
    const absl::Status status = worker_->Run(command, kFirst);
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  "epoch 1 of replica 0 is not held here");
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kStaleEpoch);
  }
  epochs().Abort(kTestReplica, kFirst, absl::AbortedError("nobody is there to hear it"));
}

TEST_F(WorkerEpochsTest, HistoryNamesNumbersThatAreTakenButHeldNoMore) {
  ASSERT_OK(worker_->Assign(Epoch(5), {}));
  EXPECT_EQ(epochs().History(), epochs().Reports());
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, Epoch(5)));
  EXPECT_TRUE(epochs().Reports().empty());
  const EpochReport taken{
      .replica = kTestReplica, .epoch = Epoch(5), .state = WorkerState::kEnlisted};
  EXPECT_EQ(epochs().History(), std::vector<EpochReport>{taken});
}

TEST_F(WorkerEpochsTest, HistoryIsNeverLongerThanAnEnlistment) {
  for (int replica = 0; replica < 70; ++replica) {
    EpochCall call = CallOf(kFirst, "release");
    call.replica = ReplicaIndex(replica);
    epochs().Run(EpochCommand::kRelease, call, absl::Seconds(1),
                 {.on_done = [](const absl::StatusOr<EpochOutcome>& done) { EXPECT_OK(done); }});
  }
  EXPECT_EQ(epochs().History().size(), WorkerEpochs::kMaxHeld);
}

TEST_F(WorkerEpochsTest, OnlyThisWorkerInThisIncarnationTakesTheRank) {
  const EpochCall call = CallOf(kFirst, "assign");
  const Topology topology = TopologyOf(kFirst, kTwo);
  const auto expect_refused = [&](const Topology& wrong, GlobalRank rank, const char* part) {
    EXPECT_STATUS(epochs().Assign(call, {wrong, rank}), absl::StatusCode::kInvalidArgument, part);
  };
  expect_refused(topology, GlobalRank(1), "rank 1 to worker w1; this is w0");
  expect_refused(topology, GlobalRank(2), "rank 2 is outside the topology of 2 ranks");
  expect_refused(TopologyOf(kSecond, kTwo), GlobalRank(0), "the topology is epoch 2");
  Topology earlier = topology;
  earlier.ranks[0].incarnation = Incarnation(99);
  expect_refused(earlier, GlobalRank(0), "before it was started again");
  expect_refused(TopologyOf(kFirst, {.tp = 5}), GlobalRank(0), "12 attention heads");
  EXPECT_OK(epochs().Assign(call, {topology, GlobalRank(0)})) << "a refusal takes no number";
}

TEST_F(WorkerEpochsTest, APhaseThatFailsGivesAllBackAndTellsWhy) {
  other_.emplace(1, board_, model_, [](std::unique_ptr<Rendezvous> it) {
    return std::make_unique<OwningFault>(
        std::move(it), FaultyRendezvous::Plan{.key = "warmup/relay",
                                              .status = absl::InternalError("no relay today")});
  });
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kFirst, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kFirst));
  const auto waiting = worker_->Start(EpochCommand::kWarmup, kFirst);
  EXPECT_STATUS(other_->Run(EpochCommand::kWarmup, kFirst), absl::StatusCode::kInternal,
                "no relay today");
  const std::vector<EpochStatus> statuses = other_->epochs().Statuses();
  ASSERT_EQ(statuses.size(), 1u);
  EXPECT_EQ(statuses[0].report.state, WorkerState::kFailed);
  EXPECT_EQ(statuses[0].report.progress.phase, "warmup/relay");
  EXPECT_STATUS(statuses[0].failure, absl::StatusCode::kInternal, "no relay today");
  EXPECT_TRUE(statuses[0].ledger.empty());
  const absl::Status later = other_->Run(EpochCommand::kCapture, kFirst);
  EXPECT_STATUS(later, absl::StatusCode::kFailedPrecondition, "has failed: ");
  EXPECT_STATUS(other_->epochs().Serving(), absl::StatusCode::kUnavailable, "no relay today");
  EXPECT_EQ(other_->epochs().unformed(), "");
  EXPECT_OK(other_->Run(EpochCommand::kRelease, kFirst));
  EXPECT_TRUE(absl::EndsWith(other_->epochs().unformed(), "no relay today"));
  // As the coordinator would tell the one that waits.
  epochs().Abort(kTestReplica, kFirst, absl::AbortedError("rank 1 failed"));
  EXPECT_STATUS(waiting->Result(), absl::StatusCode::kAborted, "rank 1 failed");
  ASSERT_OK(other_->Assign(kSecond, kTwo));
  EXPECT_EQ(other_->epochs().unformed(), "") << "the next one may be better";
}

TEST_F(WorkerEpochsTest, ReleaseGivesBackFromEveryState) {
  uint64_t number = 0;
  for (const WorkerState state :
       {WorkerState::kAssigned, WorkerState::kLoaded, WorkerState::kWarm, WorkerState::kAgreed,
        WorkerState::kServing, WorkerState::kDraining, WorkerState::kFailed}) {
    SCOPED_TRACE(WorkerStateName(state));
    const Epoch epoch(++number);
    ASSERT_OK(worker_->Reach(state, epoch));
    EXPECT_EQ(worker_->StateOf(epoch), state);
    EXPECT_OK(worker_->Run(EpochCommand::kRelease, epoch));
    EXPECT_TRUE(epochs().Reports().empty());
  }
}

TEST_F(WorkerEpochsTest, ReleaseEndsAPhaseThatWaits) {
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kFirst, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kFirst));
  const auto warmup = worker_->Start(EpochCommand::kWarmup, kFirst);
  warmup->AwaitPhase("warmup/vote");
  const auto release = worker_->Start(EpochCommand::kRelease, kFirst);
  EXPECT_STATUS(warmup->Result(), absl::StatusCode::kUnavailable, "was given up");
  EXPECT_OK(release->Result());
  EXPECT_OK(worker_->Start(EpochCommand::kRelease, kFirst, "once more")->Result());
}

TEST_F(WorkerEpochsTest, AbortEndsAPhaseThatWaitsWithItsReason) {
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kFirst, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kFirst));
  const auto warmup = worker_->Start(EpochCommand::kWarmup, kFirst);
  warmup->AwaitPhase("warmup/vote");
  epochs().Abort(kTestReplica, kFirst,
                 MakeError(absl::StatusCode::kUnavailable, "rank 1 (worker w1) was lost",
                           {.reason = ErrorReason::kRankLost, .ranks = {GlobalRank(1)}}));
  const absl::Status ended = warmup->Result().status();
  EXPECT_STATUS(ended, absl::StatusCode::kUnavailable, "rank 1 (worker w1) was lost");
  EXPECT_EQ(DetailOf(ended).reason, ErrorReason::kRankLost);
  EXPECT_EQ(worker_->StateOf(kFirst), WorkerState::kFailed);
}

TEST_F(WorkerEpochsTest, AServingEpochThatFailsServesNoMore) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  epochs().Abort(kTestReplica, kFirst, absl::AbortedError("rank 1 is gone"));
  EXPECT_EQ(worker_->events(), (std::vector<std::string>{"activated 1", "ended 1"}));
  const absl::Status status = epochs().Serving().status();
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "epoch 1 of replica 0 has failed: rank 1");
  EXPECT_TRUE(DetailOf(status).retriable);
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
  EXPECT_EQ(worker_->events().size(), 2u) << "its end is told once";
}

TEST_F(WorkerEpochsTest, AClientThatLosesItsSequencesIsToldOf) {
  FakeClock clock;
  TestWorker leader(
      0, board_, model_, [](auto it) { return it; }, clock);
  ASSERT_OK(leader.Reach(WorkerState::kServing, kFirst));
  ASSERT_OK_AND_ASSIGN(const auto serving, leader.epochs().Serving());
  ASSERT_OK(StartForward(serving->engine(), "s", {1, 2}, 0).get());
  clock.Advance(absl::Minutes(10));
  // Whoever comes next wakes the engine.
  std::promise<int> freed;
  serving->engine().Free({.client_id = "other", .sequence_ids = {"none"}},
                         [&](const absl::StatusOr<int>& count) { freed.set_value(*count); });
  EXPECT_EQ(freed.get_future().get(), 0);
  EXPECT_EQ(leader.events(), (std::vector<std::string>{"activated 1", "expired 1 'test'"}));
}

TEST_F(WorkerEpochsTest, ARequestWhoseCallerHasLeftIsNotRun) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  ASSERT_OK_AND_ASSIGN(const auto serving, epochs().Serving());
  ASSERT_OK_AND_ASSIGN(const ForwardResult before,
                       StartForward(serving->engine(), "s", {1, 2}, 0).get());
  std::promise<absl::Status> left;
  serving->engine().Forward(
      {.client_id = "test",
       .slices = {{.sequence_id = "s", .token_ids = {3}, .first_position = 2}}},
      {.done = [&](const ForwardAnswer& it) { left.set_value(it.status()); },
       .still_wanted = [] { return absl::CancelledError("it has left"); }});
  EXPECT_STATUS(left.get_future().get(), absl::StatusCode::kCancelled, "it has left");
  ASSERT_OK_AND_ASSIGN(const ForwardResult after,
                       StartForward(serving->engine(), "s", {3}, 2).get());
  EXPECT_EQ(after.step.value(), before.step.value() + 1);
}

TEST_F(WorkerEpochsTest, TheNextEpochIsPreparedWhileOneServes) {
  ASSERT_OK(Serve(both(), kFirst, kTwo));
  ASSERT_OK_AND_ASSIGN(auto serving, epochs().Serving());
  auto tokens =
      std::async(std::launch::async, [&] { return Generate(serving->engine(), golden_, 24); });
  ASSERT_OK(Serve(both(), kSecond, {.tp = 2}));
  ASSERT_OK_AND_ASSIGN(const auto of_first, tokens.get());
  EXPECT_EQ(of_first, golden_.tokens);
  ASSERT_OK_AND_ASSIGN(serving, epochs().Serving());
  EXPECT_EQ(serving->epoch, kSecond);
  ASSERT_OK(RunOnAll(both(), EpochCommand::kRelease, kFirst));
  ASSERT_OK_AND_ASSIGN(const auto of_second, Generate(serving->engine(), golden_, 24));
  EXPECT_EQ(of_second, golden_.tokens);
  EXPECT_EQ(worker_->events(), (std::vector<std::string>{"activated 1", "activated 2", "ended 1"}));
}

TEST_F(WorkerEpochsTest, ReleaseAnswersEveryRequestEvenOfThoseWhoComeLate) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  ASSERT_OK_AND_ASSIGN(auto serving, epochs().Serving());
  std::vector<std::future<absl::StatusOr<ForwardResult>>> forwards;
  for (int i = 0; i < 50; ++i) {
    forwards.push_back(StartForward(serving->engine(), absl::StrCat(i), golden_.prompt, 0));
  }
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
  EXPECT_EQ(worker_->StateOf(kFirst), WorkerState::kEnlisted) << "nobody keeps it";
  forwards.push_back(StartForward(serving->engine(), "late", golden_.prompt, 0));
  for (auto& forward : forwards) {
    ASSERT_EQ(forward.wait_for(std::chrono::seconds(0)), std::future_status::ready);
    const auto result = forward.get();
    if (result.ok()) continue;
    EXPECT_STATUS(result, absl::StatusCode::kUnavailable, "was given up");
  }
}

TEST_F(WorkerEpochsTest, WhatIsGivenUpForALostRankOrHasServedMayBeFormedAgain) {
  EpochCall lost = testing::CallOf(kFirst, "release");
  lost.why = MakeError(absl::StatusCode::kUnavailable, "rank 1 (worker w1) was lost",
                       {.reason = ErrorReason::kRankLost});
  ASSERT_OK(worker_->Assign(kFirst, kTwo));
  const auto released = std::make_shared<testing::PendingCall>();
  epochs().Run(EpochCommand::kRelease, lost, absl::Seconds(30), released->Watcher());
  EXPECT_OK(released->Result());
  EXPECT_EQ(epochs().unformed(), "");
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kSecond));
  EpochCall failed = testing::CallOf(kSecond, "release");
  failed.why = MakeError(absl::StatusCode::kInternal, "a step failed",
                         {.reason = ErrorReason::kOutOfMemory});
  const auto ended = std::make_shared<testing::PendingCall>();
  epochs().Run(EpochCommand::kRelease, failed, absl::Seconds(30), ended->Watcher());
  EXPECT_OK(ended->Result());
  EXPECT_EQ(epochs().unformed(), "");
}

TEST_F(WorkerEpochsTest, AReleaseSaysWhyTheEpochFailed) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  ASSERT_OK_AND_ASSIGN(auto serving, epochs().Serving());
  EpochCall call = testing::CallOf(kFirst, "release");
  call.why = absl::UnavailableError("rank 1 (worker w1) was lost");
  const auto pending = std::make_shared<testing::PendingCall>();
  epochs().Run(EpochCommand::kRelease, call, absl::Seconds(30), pending->Watcher());
  EXPECT_STATUS(StartForward(serving->engine(), "late", golden_.prompt, 0).get(),
                absl::StatusCode::kUnavailable, "rank 1 (worker w1) was lost");
  serving.reset();
  EXPECT_OK(pending->Result());
}

TEST_F(WorkerEpochsTest, CloseGivesAllBackAndTakesNothingMore) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  for (TestWorker* worker : both()) ASSERT_OK(worker->Assign(kSecond, kTwo));
  ASSERT_OK(RunOnAll(both(), EpochCommand::kLoad, kSecond));
  const auto warmup = worker_->Start(EpochCommand::kWarmup, kSecond);
  warmup->AwaitPhase("warmup/vote");
  epochs().Close(absl::UnavailableError("worker w0 is ending"));
  EXPECT_STATUS(warmup->Result(), absl::StatusCode::kUnavailable, "worker w0 is ending");
  EXPECT_TRUE(epochs().Reports().empty());
  EXPECT_STATUS(worker_->Assign(Epoch(3), {}), absl::StatusCode::kUnavailable,
                "worker w0 is ending");
  epochs().Close(absl::UnavailableError("again"));
}

}  // namespace
}  // namespace muster
