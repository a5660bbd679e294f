// One epoch takes over from another, while requests go on.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"

namespace muster {
namespace {

using testing::StartForward;
using testing::TestReplica;

constexpr int kTokens = 60;

class TakeoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-gqa6"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
  }

  // The next `count` greedy tokens of the sequence "s", which begins with the golden prompt.
  std::vector<int> Write(Engine& engine, int count) {
    std::vector<int> written;
    for (int i = 0; i < count; ++i) {
      const auto result = StartForward(engine, "s", pending_, position_).get();
      if (!result.ok()) {
        ADD_FAILURE() << result.status();
        break;
      }
      position_ += static_cast<int>(pending_.size());
      pending_ = {result->outputs.at(0).sampled->token};
      written.push_back(pending_[0]);
    }
    return written;
  }
  void Restart() {
    pending_ = golden_.prompt;
    position_ = 0;
  }
  // What one rank writes.
  std::vector<int> Expected(int count) {
    TestReplica alone(1, model_);
    EXPECT_OK(alone.Serve({}));
    Restart();
    std::vector<int> tokens = Write(alone.engine(), count);
    Restart();
    return tokens;
  }

  Golden golden_;
  ModelSource model_;
  std::vector<int> pending_;
  int position_ = 0;
};

TEST_F(TakeoverTest, TheTextGoesOnThroughEverySize) {
  const std::vector<int> expected = Expected(kTokens);
  TestReplica replica(6, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  std::vector<int> written;
  for (const int cp : {4, 3, 1, 6, 2}) {
    for (const int token : Write(replica.engine(), 10)) written.push_back(token);
    ASSERT_OK_AND_ASSIGN(const Takeover takeover, replica.Resize({.cp = cp}));
    EXPECT_EQ(takeover.sequences, 1);
    EXPECT_EQ(takeover.tokens_rebuilt, 0u);
  }
  for (const int token : Write(replica.engine(), 10)) written.push_back(token);
  EXPECT_EQ(written, expected);
}

TEST_F(TakeoverTest, WhereKvCannotMoveItIsComputedAgain) {
  const std::vector<int> expected = Expected(kTokens);
  TestReplica replica(6, model_);
  ASSERT_OK(replica.Serve({.tp = 1, .cp = 2}));
  std::vector<int> written = Write(replica.engine(), 20);
  ASSERT_OK_AND_ASSIGN(Takeover takeover, replica.Resize({.tp = 3, .cp = 2}));
  EXPECT_EQ(takeover.tokens_rebuilt, golden_.prompt.size() + 19) << "the last one is not fed yet";
  EXPECT_EQ(takeover.kv_blocks_moved, 0u);
  for (const int token : Write(replica.engine(), 20)) written.push_back(token);
  ASSERT_OK_AND_ASSIGN(takeover, replica.Resize({.tp = 3, .cp = 1}));
  EXPECT_EQ(takeover.tokens_rebuilt, 0u);
  for (const int token : Write(replica.engine(), 10)) written.push_back(token);
  ASSERT_OK_AND_ASSIGN(takeover, replica.Resize({.tp = 1, .cp = 1}));
  for (const int token : Write(replica.engine(), 10)) written.push_back(token);
  EXPECT_EQ(written, expected);
}

TEST_F(TakeoverTest, SequencesThatCannotBeComputedAgainStayUnlessTheyMayBeDropped) {
  TestReplica replica(3, model_);
  ASSERT_OK(replica.Serve({.tp = 1, .cp = 2}));
  Restart();
  const std::vector<int> before = Write(replica.engine(), 5);
  const int hidden = replica.engine().options().limits.hidden;
  absl::Notification done;
  replica.engine().Forward(
      {.client_id = "test",
       .slices = {{.sequence_id = "fed", .hidden_states = std::vector<float>(hidden, 0.5f)}}},
      {.done = [&](const ForwardAnswer& answer) {
        EXPECT_OK(answer.status());
        done.Notify();
      }});
  done.WaitForNotification();
  EXPECT_STATUS(replica.Resize({.tp = 3}).status(), absl::StatusCode::kFailedPrecondition,
                "test/fed");
  ASSERT_EQ(Write(replica.engine(), 5).size(), 5u) << "the former epoch serves on";
  ASSERT_OK_AND_ASSIGN(const Takeover takeover,
                       replica.Resize({.tp = 3}, {{.client_id = "test", .sequence_id = "fed"}}));
  EXPECT_EQ(takeover.sequences_dropped, 1);
  EXPECT_EQ(takeover.sequences, 1);
  EXPECT_EQ(Write(replica.engine(), 5).size(), 5u);
}

TEST_F(TakeoverTest, ABlockThatArrivesOtherwiseThanItWasSentIsNeverServed) {
  const std::vector<int> expected = Expected(kTokens);
  TestReplica replica(4, model_,
                      [](int rank, EpochContext::Options& it) { it.falsify_seals = rank == 1; });
  ASSERT_OK(replica.Serve({.cp = 2}));
  std::vector<int> written = Write(replica.engine(), 40);
  const absl::Status refused = replica.Resize({.cp = 4}).status();
  EXPECT_STATUS(refused, absl::StatusCode::kDataLoss, "checksum");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kKvCorrupt);
  for (const int token : Write(replica.engine(), kTokens - 40)) written.push_back(token);
  EXPECT_EQ(written, expected);
}

TEST_F(TakeoverTest, ARecruitThatLacksRoomForTheArenaIsNamedWithNumbers) {
  TestReplica replica(3, model_, [](int rank, EpochContext::Options& it) {
    if (rank == 2) it.kv_memory /= 4;
  });
  ASSERT_OK(replica.Serve({.cp = 2}));
  const absl::Status refused = replica.Resize({.cp = 3}).status();
  EXPECT_STATUS(refused, absl::StatusCode::kResourceExhausted, "rank 2 (worker w2) has room for ");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kOutOfMemory);
  Restart();
  EXPECT_EQ(Write(replica.engine(), 3).size(), 3u);
}

TEST_F(TakeoverTest, OneEpochFollowsAtATime) {
  TestReplica replica(3, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  ASSERT_OK(replica.Prepare({.cp = 3}));
  const Epoch first = replica.next();
  EXPECT_STATUS(replica.Prepare({.cp = 1}), absl::StatusCode::kFailedPrecondition,
                "another epoch is being prepared to follow epoch 1");
  ASSERT_OK(replica.Release(first));
  EXPECT_OK(replica.Resize({.cp = 3}).status()) << "once that is given up, another may";
}

TEST_F(TakeoverTest, NobodyDrainsWhatAnotherIsToTakeOverFrom) {
  TestReplica replica(2, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  ASSERT_OK(replica.Prepare({.cp = 1}));
  EXPECT_STATUS(replica.worker(0).Run(EpochCommand::kDrain, Epoch(1)),
                absl::StatusCode::kFailedPrecondition, "another is to take over from it");
  EXPECT_OK(replica.worker(1).Run(EpochCommand::kDrain, Epoch(1))) << "it leaves anyway";
  EXPECT_OK(replica.TakeOver().status());
  Restart();
  EXPECT_EQ(Write(replica.engine(), 3).size(), 3u);
}

TEST_F(TakeoverTest, TheLeaderStays) {
  TestReplica replica(2, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  Topology before = testing::TopologyOf(Epoch(1), {.cp = 2});
  before.ranks.front().worker_id = "w9";
  EXPECT_STATUS(replica.worker(0).Assign(Epoch(2), {.cp = 1}, before),
                absl::StatusCode::kInvalidArgument,
                "is led by w0, which does not lead the epoch that it is to follow");
}

TEST_F(TakeoverTest, OnlyAnEpochThatServesIsFollowed) {
  TestReplica replica(2, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  ASSERT_OK(replica.Release(Epoch(1)));
  EXPECT_STATUS(replica.Prepare({.cp = 1}), absl::StatusCode::kFailedPrecondition,
                "epoch 1 of replica 0, which epoch 2 of replica 0 is to follow, is not held here");
}

TEST_F(TakeoverTest, ATakeoverOnOtherTermsIsRefused) {
  TestReplica replica(2, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  ASSERT_OK(replica.Prepare({.cp = 1}));
  EXPECT_STATUS(replica.worker(0)
                    .Start(EpochCommand::kActivate, replica.next(), "",
                           {.from = Epoch(1), .agreement_digest = "0123456789abcdef"})
                    ->Result()
                    .status(),
                absl::StatusCode::kFailedPrecondition, "not on 0123456789abcdef");
  Restart();
  EXPECT_EQ(Write(replica.engine(), 3).size(), 3u);
}

TEST_F(TakeoverTest, AnEpochThatIsToFollowDoesNotServeBesideTheOther) {
  TestReplica replica(2, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  ASSERT_OK(replica.Prepare({.cp = 1}));
  EXPECT_STATUS(replica.worker(0).Run(EpochCommand::kActivate, replica.next()),
                absl::StatusCode::kFailedPrecondition, "cannot serve beside it");
  Restart();
  EXPECT_EQ(Write(replica.engine(), 3).size(), 3u);
}

// What goes wrong, when, and on whom.
struct Fault {
  const char* name;
  const char* phase;
  int victim;      // its rank: 0 leads, 1 is in both epochs, 2 joins
  bool of_leader;  // the leader's phase is meant, not the victim's, and nobody else is told
};

void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

class TakeoverFaultTest : public TakeoverTest, public ::testing::WithParamInterface<Fault> {};

// Every line of the protocol that comes before the switch.
TEST_P(TakeoverFaultTest, TheFormerEpochServesOnAndAnotherTriesAgain) {
  const Fault& fault = GetParam();
  const std::vector<int> expected = Expected(kTokens);
  TestReplica replica(3, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  std::vector<int> written = Write(replica.engine(), 20);

  const std::string reason = absl::StrCat("the test struck rank ", fault.victim);
  bool struck = false;
  replica.worker(fault.of_leader ? 0 : fault.victim).AtPhase(fault.phase, [&] {
    struck = true;
    // What is not found out along the data's way is told by the coordinator, to all.
    for (int rank = 0; rank < 3; ++rank) {
      if (rank != fault.victim && fault.of_leader) continue;
      replica.worker(rank).epochs().Abort(testing::kTestReplica, Epoch(2),
                                          absl::UnavailableError(reason));
    }
  });
  EXPECT_STATUS(replica.Resize({.cp = 3}).status(), absl::StatusCode::kUnavailable, reason);
  EXPECT_TRUE(struck) << "no such phase";
  EXPECT_EQ(replica.worker(0).StateOf(Epoch(1)), WorkerState::kServing);
  EXPECT_EQ(replica.worker(0).StateOf(Epoch(2)), WorkerState::kEnlisted);
  EXPECT_EQ(replica.engine().queue().epoch(), Epoch(1));
  for (const int token : Write(replica.engine(), 20)) written.push_back(token);

  ASSERT_OK_AND_ASSIGN(const Takeover takeover, replica.Resize({.cp = 3}));
  EXPECT_GT(takeover.kv_blocks_moved, 0u);
  for (const int token : Write(replica.engine(), 20)) written.push_back(token);
  EXPECT_EQ(written, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Lines, TakeoverFaultTest,
    ::testing::Values(Fault{"LoadOfARecruit", "load", 2, false},
                      Fault{"LoadOfASurvivor", "load", 1, false},
                      Fault{"LoadOfTheLeader", "load", 0, false},
                      Fault{"WarmupOfARecruit", "warmup/allocate", 2, false},
                      Fault{"SelfTestOfARecruit", "warmup/self-test", 2, false},
                      Fault{"SelfTestOfASurvivor", "warmup/self-test", 1, false},
                      Fault{"SelfTestOfTheLeader", "warmup/self-test", 0, false},
                      Fault{"RelayOfARecruit", "warmup/relay", 2, false},
                      Fault{"GraphsOfARecruit", "capture/graphs", 2, false},
                      Fault{"GraphsOfASurvivor", "capture/graphs", 1, false},
                      Fault{"GraphsOfTheLeader", "capture/graphs", 0, false},
                      Fault{"KvOfARecruit", "capture/kv", 2, false},
                      Fault{"KvOfASurvivor", "capture/kv", 1, false},
                      Fault{"AgreementOfARecruit", "capture/agree", 2, false},
                      Fault{"ActivationOfTheLeader", "activate", 0, true},
                      Fault{"CopyToARecruit", "activate/copy", 2, true},
                      Fault{"CopyToASurvivor", "activate/copy", 1, true},
                      Fault{"CopyToTheLeader", "activate/copy", 0, true},
                      Fault{"HoldWithARecruit", "activate/hold", 2, true},
                      Fault{"HoldWithASurvivor", "activate/hold", 1, true},
                      Fault{"HoldOfTheLeader", "activate/hold", 0, true}),
    [](const auto& info) { return std::string(info.param.name); });

// From the switch on there is no way back: the replica has failed, and says of whom.
TEST_F(TakeoverTest, WhatFailsAfterTheSwitchFailsTheReplica) {
  for (const int victim : {0, 1, 2}) {
    TestReplica replica(3, model_);
    ASSERT_OK(replica.Serve({.cp = 2}));
    Restart();
    ASSERT_EQ(Write(replica.engine(), 20).size(), 20u);
    const std::string reason = absl::StrCat("the test struck rank ", victim);
    replica.worker(0).AtPhase("activate/switch", [&] {
      replica.worker(victim).epochs().Abort(testing::kTestReplica, Epoch(2),
                                            absl::UnavailableError(reason));
    });
    ASSERT_OK(replica.Prepare({.cp = 3}));
    const auto outcome = replica.StartTakeOver()->Result();
    const auto answer = StartForward(replica.engine(), "s", pending_, position_).get();
    EXPECT_STATUS(answer.status(), absl::StatusCode::kUnavailable, reason);
    EXPECT_NE(replica.worker(0).StateOf(Epoch(1)), WorkerState::kServing) << "never two";
    EXPECT_EQ(replica.worker(0).StateOf(Epoch(2)), WorkerState::kFailed);
    // Until its own thread has seen the end, the former epoch is found, whose engine refuses.
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (replica.worker(0).epochs().Serving().ok() && absl::Now() < deadline) continue;
    EXPECT_STATUS(replica.worker(0).epochs().Serving().status(), absl::StatusCode::kUnavailable,
                  reason);
  }
}

TEST_F(TakeoverTest, AnEpochThatFailsTakesTheOneThatWasToFollowAlong) {
  for (const char* const phase : {"activate/copy", "activate/hold"}) {
    TestReplica replica(3, model_);
    ASSERT_OK(replica.Serve({.cp = 3}));
    Restart();
    ASSERT_EQ(Write(replica.engine(), 20).size(), 20u);
    ASSERT_OK(replica.Prepare({.cp = 2}));
    replica.worker(0).AtPhase(phase, [&] {  // rank 2 leaves
      replica.worker(2).epochs().Abort(testing::kTestReplica, Epoch(1),
                                       absl::UnavailableError("the test struck rank 2"));
    });
    EXPECT_STATUS(replica.StartTakeOver()->Result().status(), absl::StatusCode::kUnavailable,
                  "the test struck rank 2");
    EXPECT_FALSE(StartForward(replica.engine(), "s", pending_, position_).get().ok());
    for (const Epoch epoch : {Epoch(1), Epoch(2)}) {
      EXPECT_EQ(replica.worker(0).StateOf(epoch), WorkerState::kFailed) << epoch.value();
    }
  }
}

}  // namespace
}  // namespace muster
