// The life of an epoch on its ranks, and of two epochs side by side.
#include "worker/engine/epoch_context.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/local_replica.h"
#include "tests/support/run_ranks.h"
#include "tests/support/status_matchers.h"
#include "worker/model/golden.h"

namespace muster {
namespace {

using testing::ForwardAndWait;
using testing::LocalReplica;
using testing::TokensOf;
using testing::Write;

struct Subject {
  Golden golden;
  ModelSource model;
};

absl::StatusOr<Subject> Open(const std::string& name) {
  Subject subject;
  MUSTER_ASSIGN_OR_RETURN(subject.golden, ReadGolden(name));
  MUSTER_ASSIGN_OR_RETURN(subject.model, ModelSource::Open(subject.golden.directory, "float32"));
  return subject;
}

class EpochContextTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto subject = Open("llama-gqa6");
    ASSERT_OK(subject);
    subject_ = *std::move(subject);
  }

  std::unique_ptr<LocalReplica> Form(const LocalReplica::Options& options) {
    auto replica = LocalReplica::Form(subject_.model, options);
    EXPECT_OK(replica);
    return replica.ok() ? *std::move(replica) : nullptr;
  }

  // A context of its own for each rank of `config`, all at state ASSIGNED.
  std::vector<std::unique_ptr<EpochContext>> Assign(
      const ParallelConfig& config,
      const std::function<void(int rank, EpochContext::Options&)>& adjust = {}) {
    std::vector<std::unique_ptr<EpochContext>> contexts;
    for (int rank = 0; rank < config.world_size(); ++rank) {
      backends_.push_back(
          std::make_unique<CpuEngineBackend>(CpuDeviceOptions{}, ShmBackend::Options{}));
      EpochContext::Options options{.kv_memory = uint64_t{8} << 20};
      if (adjust) adjust(rank, options);
      auto context = EpochContext::Create(
          options, {.topology = testing::MakeTopology(config, Epoch(1)),
                    .rank = GlobalRank(rank),
                    .model = subject_.model,
                    .backend = *backends_.back(),
                    .rendezvous = std::make_unique<testing::LocalRendezvous>(board_, Epoch(1)),
                    .on_client_expired = [this](const auto& it) { expired_.push_back(it); }});
      EXPECT_OK(context);
      contexts.push_back(*std::move(context));
    }
    return contexts;
  }

  Subject subject_;
  testing::LocalRendezvousBoard board_;
  std::vector<std::unique_ptr<CpuEngineBackend>> backends_;
  std::vector<ClientExpiry> expired_;  // of the leader's thread until it has answered
};

SequenceSlice Slice(std::string id, std::vector<uint32_t> tokens, uint32_t position = 0) {
  return {.sequence_id = std::move(id),
          .token_ids = std::move(tokens),
          .first_position = position,
          .sample = true};
}

TEST_F(EpochContextTest, GoesFromAssignedToServingAndWritesTheGoldenTokens) {
  const auto replica = Form({});
  ASSERT_NE(replica, nullptr);
  EpochContext& context = replica->context(0);
  const auto written = Write(replica->engine(), subject_.golden.prompt, 24, {});
  ASSERT_OK(written);
  EXPECT_EQ(TokensOf(*written), subject_.golden.tokens);
  const EpochReport report = context.Report();
  EXPECT_EQ(report.state, WorkerState::kServing);
  EXPECT_EQ(report.step, StepNumber(24));
  EXPECT_GT(report.kv_blocks_total, 0u);
}

TEST_F(EpochContextTest, TheLedgerNamesAllThatIsHeld) {
  const auto replica = Form({.config = {.tp = 3, .cp = 2}});
  ASSERT_NE(replica, nullptr);
  std::vector<std::string> tags;
  for (const LedgerEntry& entry : replica->context(5).ledger().Entries()) tags.push_back(entry.tag);
  EXPECT_EQ(tags, (std::vector<std::string>{"activations", "graphs", "kv", "resize reserve",
                                            "sampling", "weights", "workspace/CP",
                                            "workspace/STAGE", "workspace/TP"}));
}

// One of the same size loads no weights, but makes all the rest while this one serves.
TEST_F(EpochContextTest, RoomForTheNextEpochIsKeptWhateverWeightsItLoads) {
  const auto replica = Form({.config = {.cp = 2}});
  ASSERT_NE(replica, nullptr);
  uint64_t kept = 0, made = 0;
  for (const LedgerEntry& entry : replica->context(0).ledger().Entries()) {
    if (entry.tag == "resize reserve") kept += entry.bytes;
    if (absl::StartsWith(entry.tag, "workspace/")) made += entry.bytes;
  }
  EXPECT_GT(made, 0u);
  EXPECT_GE(kept, made);
}

TEST_F(EpochContextTest, PhasesRunInTheirOrderOnly) {
  auto contexts = Assign({});
  EpochContext& context = *contexts[0];
  EXPECT_STATUS(context.Warmup(absl::Seconds(1)), absl::StatusCode::kFailedPrecondition,
                "epoch 1 is ASSIGNED on rank 0; this needs LOADED");
  EXPECT_STATUS(context.Activate(), absl::StatusCode::kFailedPrecondition, "AGREED");
  EXPECT_STATUS(context.Drain(absl::Seconds(1)), absl::StatusCode::kFailedPrecondition, "ASSIGNED");
  ASSERT_OK(context.Load());
  EXPECT_STATUS(context.Load(), absl::StatusCode::kFailedPrecondition, "LOADED");
  // A refused call has changed nothing.
  EXPECT_OK(context.Warmup(absl::Seconds(30)));
}

TEST_F(EpochContextTest, RefusesSizesThatTheModelDoesNotDivideBy) {
  const ParallelConfig config{.tp = 4};
  const auto context = EpochContext::Create(
      {}, {.topology = testing::MakeTopology(config, Epoch(1)),
           .model = subject_.model,
           .backend = *backends_.emplace_back(
               std::make_unique<CpuEngineBackend>(CpuDeviceOptions{}, ShmBackend::Options{})),
           .rendezvous = nullptr});
  EXPECT_STATUS(context.status(), absl::StatusCode::kInvalidArgument, "6 attention heads");
}

TEST_F(EpochContextTest, TakesNoRequestBeforeActivateNorWhileItDrains) {
  auto contexts = Assign({});
  EpochContext& context = *contexts[0];
  ASSERT_OK(context.Load());
  ASSERT_OK(context.Warmup(absl::Seconds(30)));
  ASSERT_EQ(context.engine(), nullptr);
  ASSERT_OK(context.Capture(absl::Seconds(30)));
  const ForwardBatch batch{.client_id = "c", .slices = {Slice("s", {1, 2})}};
  const auto early = ForwardAndWait(*context.engine(), batch);
  EXPECT_STATUS(early.status(), absl::StatusCode::kUnavailable, "takes no requests now");
  EXPECT_TRUE(DetailOf(early.status()).retriable);
  ASSERT_OK(context.Activate());
  EXPECT_OK(ForwardAndWait(*context.engine(), batch));
  ASSERT_OK(context.Drain(absl::Seconds(10)));
  EXPECT_EQ(context.Report().state, WorkerState::kDraining);
  EXPECT_STATUS(ForwardAndWait(*context.engine(), batch).status(), absl::StatusCode::kUnavailable,
                "takes no requests now");
  EXPECT_OK(context.Drain(absl::Seconds(10)));
}

TEST_F(EpochContextTest, ASilentClientLosesItsSequencesAndSomebodyIsToldSo) {
  FakeClock clock;
  const auto contexts = Assign({}, [&](int, EpochContext::Options& options) {
    options.client_lease = absl::Seconds(90);
    options.clock = &clock;
  });
  EpochContext& context = *contexts[0];
  ASSERT_OK(context.Load());
  ASSERT_OK(context.Warmup(absl::Seconds(30)));
  ASSERT_OK(context.Capture(absl::Seconds(30)));
  ASSERT_OK(context.Activate());
  Engine& engine = *context.engine();
  const std::vector<uint32_t> two_blocks(17, 1);
  ASSERT_OK(ForwardAndWait(
      engine, {.client_id = "silent", .slices = {Slice("a", two_blocks), Slice("b", {1})}}));
  clock.Advance(absl::Seconds(60));
  ASSERT_OK(ForwardAndWait(engine, {.client_id = "alive", .slices = {Slice("a", {1, 2})}}));
  EXPECT_TRUE(expired_.empty());
  clock.Advance(absl::Seconds(30));
  ASSERT_OK(ForwardAndWait(engine, {.client_id = "alive", .slices = {Slice("a", {3}, 2)}}));
  ASSERT_EQ(expired_.size(), 1u);
  EXPECT_EQ(expired_[0].client_id, "silent");
  EXPECT_EQ(expired_[0].lease, absl::Seconds(90));
  EXPECT_EQ(expired_[0].sequences, 2);
  EXPECT_EQ(expired_[0].kv_blocks, 3);
  EXPECT_EQ(engine.capacity().sequences, 1);
  EXPECT_EQ(engine.capacity().free_blocks, engine.capacity().total_blocks - 1);
}

TEST_F(EpochContextTest, ReportsTheTokensThatItRan) {
  const auto replica = Form({.config = {.cp = 2}});
  ASSERT_NE(replica, nullptr);
  const std::vector<uint32_t> prompt(7, 1);
  ASSERT_OK(ForwardAndWait(replica->engine(), {.client_id = "c", .slices = {Slice("a", prompt)}}));
  ASSERT_OK(ForwardAndWait(replica->engine(), {.client_id = "c", .slices = {Slice("a", {1}, 7)}}));
  EXPECT_EQ(replica->context(0).Report().tokens, 8u) << "padding is not counted";
  EXPECT_EQ(replica->context(0).Report().queued_requests, 0);
}

TEST_F(EpochContextTest, ARefusedBatchChangesNothing) {
  const auto replica = Form({.config = {.cp = 2}});
  ASSERT_NE(replica, nullptr);
  Engine& engine = replica->engine();
  ASSERT_OK(ForwardAndWait(engine, {.client_id = "c", .slices = {Slice("a", {1, 2, 3})}}));
  const Capacity before = engine.capacity();

  const auto refused = [&](ForwardBatch batch, absl::StatusCode code, const char* part) {
    const auto result = ForwardAndWait(engine, std::move(batch));
    EXPECT_STATUS(result.status(), code, part);
    EXPECT_FALSE(DetailOf(result.status()).kv_written);
    EXPECT_EQ(engine.capacity().free_blocks, before.free_blocks);
    EXPECT_EQ(engine.capacity().sequences, before.sequences);
  };
  refused({.client_id = "c", .expected_epoch = Epoch(7), .slices = {Slice("b", {1})}},
          absl::StatusCode::kFailedPrecondition, "epoch 7 is not served; epoch 1 is");
  refused({.client_id = "c", .slices = {Slice("b", {1}), Slice("a", {1}, 2)}},
          absl::StatusCode::kFailedPrecondition, "has 3 tokens");
  refused({.client_id = "c", .slices = {Slice("b", {257})}}, absl::StatusCode::kInvalidArgument,
          "257");
  refused({.client_id = "c", .slices = {Slice("b", {})}}, absl::StatusCode::kInvalidArgument, "b");
  refused({.client_id = "c", .slices = {Slice("b", std::vector<uint32_t>(513, 1))}},
          absl::StatusCode::kOutOfRange, "513");
  EXPECT_OK(ForwardAndWait(engine, {.client_id = "c", .slices = {Slice("a", {4}, 3)}}));
}

TEST_F(EpochContextTest, APromptBeyondTheKvBlocksIsRefusedWithTheNumbers) {
  // Four blocks of 16 tokens.
  const uint64_t block = uint64_t{2} * 2 * 3 * 16 * 16 * sizeof(float);
  const auto replica = Form({.context = {.kv_memory = 4 * block}});
  ASSERT_NE(replica, nullptr);
  Engine& engine = replica->engine();
  EXPECT_EQ(engine.capacity().total_blocks, 4);
  EXPECT_EQ(engine.capacity().max_prompt_tokens, 64);
  const std::vector<uint32_t> longer(65, 1);
  const auto result = ForwardAndWait(engine, {.client_id = "c", .slices = {Slice("a", longer)}});
  EXPECT_STATUS(result.status(), absl::StatusCode::kResourceExhausted,
                "sequence 'a' would need 5 KV blocks; 4 of 4 are free");
  EXPECT_EQ(DetailOf(result.status()).reason, ErrorReason::kKvCapacity);
}

TEST_F(EpochContextTest, KvThatHoldsNoBlockFailsAllRanksWithTheirNumbers) {
  const auto contexts = Assign(
      {.cp = 2}, [](int rank, auto& options) { options.kv_memory = rank == 1 ? 4096 : 1 << 20; });
  std::vector<absl::Status> statuses(2);
  EXPECT_FALSE(testing::OnAllRanks(2, [&](int rank) -> absl::Status {
                 EpochContext& context = *contexts[rank];
                 MUSTER_RETURN_IF_ERROR(context.Load());
                 MUSTER_RETURN_IF_ERROR(context.Warmup(absl::Seconds(30)));
                 return statuses[rank] = context.Capture(absl::Seconds(30)).status();
               }).ok());
  for (const absl::Status& status : statuses) {
    EXPECT_TRUE(
        absl::StrContains(status.message(), "rank 1: no room for KV: a block of 16 tokens takes"))
        << status;
  }
  EXPECT_EQ(contexts[0]->Report().state, WorkerState::kFailed);
  EXPECT_EQ(contexts[0]->ledger().total(), 0u) << "what failed holds nothing";
}

TEST_F(EpochContextTest, RanksThatWouldNotCaptureTheSameGraphsFindOut) {
  const auto contexts = Assign({.tp = 3}, [](int rank, auto& options) {
    options.limits.max_sequences = rank == 2 ? 128 : 256;
  });
  std::vector<absl::Status> statuses(3);
  EXPECT_FALSE(testing::OnAllRanks(3, [&](int rank) -> absl::Status {
                 EpochContext& context = *contexts[rank];
                 MUSTER_RETURN_IF_ERROR(context.Load());
                 MUSTER_RETURN_IF_ERROR(context.Warmup(absl::Seconds(30)));
                 return statuses[rank] = context.Capture(absl::Seconds(30)).status();
               }).ok());
  for (const absl::Status& status : statuses) {
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  "rank 2 (worker w2) has other limits");
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kDisagreement);
    EXPECT_EQ(DetailOf(status).ranks, std::vector<GlobalRank>{GlobalRank(2)});
  }
}

// A rank that goes while its peers wait for it in a phase ends their wait at once.
TEST_F(EpochContextTest, AbortEndsTheWaitsOfAPhase) {
  const auto contexts = Assign({.cp = 2});
  ASSERT_OK(contexts[0]->Load());
  std::thread aborts(
      [&] { contexts[0]->Abort(absl::UnavailableError("rank 1 (worker w1) was lost")); });
  const absl::Status status = contexts[0]->Warmup(absl::Seconds(600));
  aborts.join();
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "rank 1 (worker w1) was lost");
  EXPECT_EQ(contexts[0]->Report().state, WorkerState::kFailed);
}

TEST_F(EpochContextTest, AFollowerThatGoesEndsTheEpochAndAnswersWhoeverWaits) {
  const auto replica = Form({.config = {.cp = 2}});
  ASSERT_NE(replica, nullptr);
  ASSERT_OK(ForwardAndWait(replica->engine(), {.client_id = "c", .slices = {Slice("a", {1})}}));
  replica->Destroy(1);
  const auto result =
      ForwardAndWait(replica->engine(), {.client_id = "c", .slices = {Slice("a", {1}, 1)}});
  EXPECT_STATUS(result.status(), absl::StatusCode::kUnavailable, "epoch 1 was released");
  const auto later =
      ForwardAndWait(replica->engine(), {.client_id = "c", .slices = {Slice("b", {1})}});
  EXPECT_FALSE(later.ok());
  EXPECT_FALSE(DetailOf(later.status()).kv_written);
  // The epoch's own thread says so once it has answered; the test's time limit bounds the wait.
  while (replica->context(0).Report().state != WorkerState::kFailed) std::this_thread::yield();
}

TEST_F(EpochContextTest, SamplingDependsOnSeedAndPositionNotOnTheTopology) {
  const testing::Writing writing{.sampling = {.temperature = 1.5f, .top_p = 0.95f, .seed = 7}};
  std::vector<std::vector<int>> texts;
  for (const ParallelConfig& config :
       {ParallelConfig{}, ParallelConfig{.cp = 3}, ParallelConfig{.tp = 3, .cp = 2}}) {
    const auto replica = Form({.config = config});
    ASSERT_NE(replica, nullptr);
    const auto written = Write(replica->engine(), subject_.golden.prompt, 24, writing);
    ASSERT_OK(written);
    texts.push_back(TokensOf(*written));
  }
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
  EXPECT_NE(texts[0], subject_.golden.tokens);
}

// One rank of two epochs that live in the same processes. Args: which epoch goes first, "1" or "2".
const testing::RankCase kTwoEpochs("two-epochs", [](testing::RankContext& rank) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const Subject subject, Open("llama-gqa6"));
  CpuEngineBackend backend({}, {});
  const ParallelConfig configs[] = {{.tp = 3, .cp = 1}, {.tp = 1, .cp = 3}};
  std::unique_ptr<EpochContext> contexts[2];
  for (int i : {0, 1}) {
    const Epoch epoch(static_cast<uint64_t>(i) + 1);
    const Topology topology = testing::MakeTopology(configs[i], epoch);
    MUSTER_ASSIGN_OR_RETURN(contexts[i],
                            EpochContext::Create({.kv_memory = uint64_t{4} << 20},
                                                 {.topology = topology,
                                                  .rank = rank.rank,
                                                  .model = subject.model,
                                                  .backend = backend,
                                                  .rendezvous = rank.make_rendezvous(epoch)}));
    MUSTER_RETURN_IF_ERROR(contexts[i]->Load());
    MUSTER_RETURN_IF_ERROR(contexts[i]->Warmup(absl::Seconds(60)));
    MUSTER_RETURN_IF_ERROR(contexts[i]->Capture(absl::Seconds(60)).status());
    MUSTER_RETURN_IF_ERROR(contexts[i]->Activate());
  }
  // Outlives both epochs.
  const std::unique_ptr<Rendezvous> between = rank.make_rendezvous(Epoch(3));
  const GroupSpec everybody = DeriveGroups(configs[0], Epoch(3))[0];
  MUSTER_ASSIGN_OR_RETURN(const Group all, Group::Create(everybody, rank.rank));
  const auto meet = [&](const char* key) {
    return between->AllGather(all, key, "", absl::Seconds(60)).status();
  };
  const auto expect_golden = [&](int i, int tokens) -> absl::Status {
    if (rank.rank != GlobalRank(0)) return absl::OkStatus();
    MUSTER_ASSIGN_OR_RETURN(const auto written, Write(*contexts[i]->engine(), subject.golden.prompt,
                                                      tokens, {.chunk = 33}));
    const std::vector<int> expected(subject.golden.tokens.begin(),
                                    subject.golden.tokens.begin() + tokens);
    if (TokensOf(written) == expected) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("epoch ", i + 1, " wrote other tokens"));
  };
  for (int round = 0; round < 3; ++round) {
    for (int i : {0, 1}) MUSTER_RETURN_IF_ERROR(expect_golden(i, 4));
  }
  MUSTER_RETURN_IF_ERROR(meet("both have stepped"));
  const int goes = rank.args == "1" ? 0 : 1;
  contexts[goes].reset();
  MUSTER_RETURN_IF_ERROR(meet("one is gone"));
  MUSTER_RETURN_IF_ERROR(expect_golden(1 - goes, 24));
  return meet("the other has stepped");
});

TEST(TwoEpochsTest, StepSideBySideInTheSameProcessesAndGoInAnyOrder) {
  for (const testing::RanksAs as : {testing::RanksAs::kThreads, testing::RanksAs::kProcesses}) {
    for (const char* first : {"1", "2"}) {
      SCOPED_TRACE(absl::StrCat("first to go: ", first,
                                ", processes: ", as == testing::RanksAs::kProcesses));
      const auto results = testing::RunRanks(
          3, "two-epochs", {.as = as, .args = first, .timeout = absl::Seconds(120)});
      EXPECT_OK(testing::AllOk(results));
    }
  }
}

}  // namespace
}  // namespace muster
