// Whatever schedulers ask of a replica, and however it is cut over ranks: every answer is what the
// sequence's tokens give when they are run alone and from scratch, every refusal is the one that
// the contract has, and blocks are counted right.
#include "tests/equivalence/random_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "kernels/sampling.h"
#include "tests/equivalence/contract_model.h"
#include "tests/equivalence/history_oracle.h"
#include "tests/support/local_replica.h"
#include "tests/support/status_matchers.h"
#include "worker/model/golden.h"

namespace muster::testing {
namespace {

constexpr uint64_t kFixedSeeds[] = {1, 2, 3};
constexpr int kOperations = 400;
constexpr int kBlocks = 20;  // over all cp ranks
constexpr int kSequences = 8;
// Answers of which retries are asked; a replica keeps more.
constexpr size_t kRecorded = 30;
// Logits of about 10 after sums of at most 130 products, whose order differs with the shape and
// with the rows of a step: some hundred roundings of 2^-24.
constexpr float kTolerance = 1e-4f;

// How often what had to happen did.
using Seen = std::map<std::string, int>;

const char* const kMustBeSeen[] = {
    "answers",
    "whole and partial slices in one batch",
    "hidden states in",
    "batches of several that do not fit",
    "forks",
    "shared blocks replaced",
    "retries",
    "retries at once",
    "request ids reused",
    "callers that gave up",
    "stale epochs",
    "positions refused",
    "unknown sequences",
    "sequences beyond the limit",
    "sequences freed",
    "draws",
};

// A request on its way.
struct Asked {
  absl::Notification answered;
  ForwardAnswer answer = absl::UnknownError("not answered");
};

// No place differs by more than rounding.
void ExpectNear(const std::vector<float>& actual, const float* expected, size_t count,
                const char* what) {
  ASSERT_EQ(actual.size(), count) << what;
  for (size_t i = 0; i < count; ++i) {
    ASSERT_NEAR(actual[i], expected[i], kTolerance * (1 + std::abs(expected[i])))
        << what << " at " << i;
  }
}

double LogSum(const std::vector<float>& logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  return std::log(sum);
}

int32_t Draw(const SequenceSlice& slice, int64_t position, const std::vector<float>& logits) {
  std::vector<Candidate> scratch(logits.size());
  return SampleFromLogits(ParamsOf(slice, position), logits.data(),
                          static_cast<int64_t>(logits.size()), scratch.data())
      .token;
}

// Whether logits within the tolerance of these draw `token`: it and the expected one are so near
// to each other that rounding decides.
bool IsNearTie(const SequenceSlice& slice, int64_t position, const std::vector<float>& logits,
               int32_t token) {
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> error(-kTolerance, kTolerance);
  for (int i = 0; i < 200; ++i) {
    std::vector<float> moved = logits;
    for (float& logit : moved) logit += error(random);
    if (Draw(slice, position, moved) == token) return true;
  }
  return false;
}

// A schedule on a replica and on the model of its contract, side by side.
class SideBySide {
 public:
  SideBySide(uint64_t seed, Engine& engine, HistoryOracle& oracle,
             const ContractModel::Options& options, Seen& seen)
      : engine_(engine),
        oracle_(oracle),
        seen_(seen),
        model_(options),
        schedule_(seed, model_, oracle, static_cast<uint32_t>(engine.options().limits.vocabulary)) {
  }

  void Run(int operations) {
    while (asked_ < operations && !::testing::Test::HasFatalFailure()) {
      // Several at once wait for the engine, which takes them in their order.
      for (uint32_t burst = 1 + schedule_.Below(4); burst > 0; --burst, ++asked_) Ask();
      for (const auto& check : checks_) ASSERT_NO_FATAL_FAILURE(check());
      checks_.clear();
      ASSERT_NO_FATAL_FAILURE(ExpectCapacity());
    }
    model_.Free({.client_id = "a", .all = true});
    model_.Free({.client_id = "b", .all = true});
    for (const char* client : {"a", "b"}) AwaitFree({.client_id = client, .all = true});
    ExpectCapacity();
  }

 private:
  void Ask() {
    const uint32_t dice = schedule_.Below(100);
    if (dice < 62) return AskForward();
    if (dice < 75) return AskFork();
    if (dice < 88) return AskFree();
    if (dice < 91) return AskStale();
    if (dice < 94) return AskInVain();
    AskAgain(/*same_body=*/dice < 98);
  }

  std::shared_ptr<Asked> Send(
      const ForwardBatch& batch,
      std::function<absl::Status()> still_wanted = [] { return absl::OkStatus(); }) {
    auto asked = std::make_shared<Asked>();
    engine_.Forward(batch, {.done =
                                [asked](const ForwardAnswer& answer) {
                                  asked->answer = answer;
                                  asked->answered.Notify();
                                },
                            .still_wanted = std::move(still_wanted)});
    return asked;
  }
  static const ForwardAnswer& AnswerTo(const std::shared_ptr<Asked>& asked) {
    asked->answered.WaitForNotification();
    return asked->answer;
  }

  void AskForward() {
    auto meant = std::make_shared<MeantBatch>(schedule_.Forward());
    if (schedule_.Chance(50)) meant->batch.request_id = absl::StrCat("request ", asked_);
    if (schedule_.Chance(20)) meant->batch.expected_epoch = Epoch(1);
    Count(*meant);
    const auto expected = model_.Forward(*meant);
    const auto asked = Send(meant->batch);
    CountRefusal(*meant, expected.status());
    checks_.push_back([this, meant, expected, asked] {
      const ForwardAnswer& answer = AnswerTo(asked);
      if (!expected.ok()) return ExpectRefusal(answer.status(), expected.status());
      ASSERT_OK(answer);
      EXPECT_GT((*answer)->step, last_step_);
      last_step_ = (*answer)->step;
      ExpectOutputs(*meant, *expected, **answer);
    });
    if (meant->batch.request_id.empty()) return;
    if (schedule_.Chance(30)) AskAtOnceAgain(*meant, expected.status(), asked);
    if (!expected.ok()) return;
    recorded_.push_back({meant, asked});
    if (recorded_.size() > kRecorded) recorded_.pop_front();
  }

  // The same while the first may still wait, run, or be answered.
  void AskAtOnceAgain(const MeantBatch& meant, const absl::Status& expected,
                      const std::shared_ptr<Asked>& first) {
    ++seen_["retries at once"];
    const auto again = Send(meant.batch);
    checks_.push_back([expected, first, again] {
      if (!expected.ok()) return ExpectRefusal(AnswerTo(again).status(), expected);
      ExpectSameAnswer(AnswerTo(again), AnswerTo(first));
    });
  }

  void AskAgain(bool same_body) {
    if (recorded_.empty()) return;
    const auto [meant, first] = recorded_[schedule_.Below(recorded_.size())];
    ForwardBatch batch = meant->batch;
    if (!same_body) ++batch.slices[0].sampling.seed;
    ++seen_[same_body ? "retries" : "request ids reused"];
    const auto again = Send(batch);
    checks_.push_back([same_body, first = first, again] {
      if (same_body) return ExpectSameAnswer(AnswerTo(again), AnswerTo(first));
      ExpectRefusal(AnswerTo(again).status(), MakeError(absl::StatusCode::kInvalidArgument, "",
                                                        {.reason = ErrorReason::kRequestIdReused}));
    });
  }

  void AskStale() {
    ++seen_["stale epochs"];
    ForwardBatch batch = schedule_.Forward().batch;
    batch.expected_epoch = Epoch(2);
    const auto asked = Send(batch);
    checks_.push_back([asked] {
      ExpectRefusal(AnswerTo(asked).status(), MakeError(absl::StatusCode::kFailedPrecondition, "",
                                                        {.reason = ErrorReason::kStaleEpoch}));
    });
  }

  void AskInVain() {
    ++seen_["callers that gave up"];
    const absl::Status gone =
        MakeError(absl::StatusCode::kCancelled, "gone", {.reason = ErrorReason::kGivenUp});
    const auto asked = Send(schedule_.Forward().batch, [gone] { return gone; });
    checks_.push_back([asked, gone] { ExpectRefusal(AnswerTo(asked).status(), gone); });
  }

  void AskFork() {
    const ForkOrder order = schedule_.Fork();
    const auto expected = model_.Fork(order);
    if (expected.ok()) ++seen_["forks"];
    auto done = std::make_shared<absl::Notification>();
    auto result = std::make_shared<absl::StatusOr<Forked>>();
    engine_.Fork(order, [done, result](const absl::StatusOr<Forked>& forked) {
      *result = forked;
      done->Notify();
    });
    checks_.push_back([expected, done, result] {
      done->WaitForNotification();
      if (!expected.ok()) return ExpectRefusal(result->status(), expected.status());
      ASSERT_OK(*result);
      EXPECT_EQ((*result)->tokens, expected->tokens);
      EXPECT_EQ((*result)->shared_blocks, expected->shared_blocks);
    });
  }

  void AskFree() {
    const FreeOrder order = schedule_.Free();
    const int expected = model_.Free(order);
    seen_["sequences freed"] += expected;
    auto done = std::make_shared<absl::Notification>();
    auto freed = std::make_shared<int>(-1);
    engine_.Free(order, [done, freed](const absl::StatusOr<int>& it) {
      *freed = it.value_or(-2);
      done->Notify();
    });
    checks_.push_back([expected, done, freed] {
      done->WaitForNotification();
      EXPECT_EQ(*freed, expected);
    });
  }

  void AwaitFree(const FreeOrder& order) {
    absl::Notification done;
    engine_.Free(order, [&](const absl::StatusOr<int>&) { done.Notify(); });
    done.WaitForNotification();
  }

  static void ExpectRefusal(const absl::Status& actual, const absl::Status& expected) {
    ASSERT_EQ(actual.code(), expected.code()) << actual;
    EXPECT_EQ(DetailOf(actual).reason, DetailOf(expected).reason) << actual;
    EXPECT_FALSE(DetailOf(actual).kv_written) << actual;
  }
  static void ExpectSameAnswer(const ForwardAnswer& again, const ForwardAnswer& first) {
    ASSERT_OK(again);
    EXPECT_EQ((*again)->step, (*first)->step);
    EXPECT_TRUE((*again)->outputs == (*first)->outputs);
  }

  void ExpectOutputs(const MeantBatch& meant, const std::vector<History>& histories,
                     const ForwardResult& result) {
    ASSERT_EQ(result.outputs.size(), histories.size());
    for (size_t i = 0; i < histories.size(); ++i) {
      SCOPED_TRACE(absl::StrCat("slice ", i, " of ", histories.size(), ", ", histories[i].size(),
                                " tokens"));
      const SequenceSlice& slice = meant.batch.slices[i];
      ASSERT_OK(result.outputs[i].error);
      ExpectHiddenStates(slice, histories[i], result.outputs[i].hidden_states);
      ExpectTokens(slice, histories[i], result.outputs[i]);
      ++seen_["answers"];
    }
  }

  void ExpectHiddenStates(const SequenceSlice& slice, const History& history,
                          const std::vector<float>& actual) {
    if (!slice.return_hidden_states.has_value()) {
      EXPECT_TRUE(actual.empty());
      return;
    }
    const auto& all = oracle_.HiddenStates(history, *slice.return_hidden_states);
    const size_t before = slice.first_position * (all.size() / history.size());
    ExpectNear(actual, all.data() + before, all.size() - before, "hidden states");
  }

  void ExpectTokens(const SequenceSlice& slice, const History& history, const SliceOutput& output) {
    EXPECT_EQ(output.sampled.has_value(), slice.sample);
    EXPECT_EQ(output.top.size(), slice.top_n);
    EXPECT_EQ(output.logits.empty(), !slice.return_logits);
    if (!slice.sample && slice.top_n == 0 && !slice.return_logits) return;
    const std::vector<float>& logits = oracle_.Logits(history);
    if (slice.return_logits) ExpectNear(output.logits, logits.data(), logits.size(), "logits");
    const double log_sum = LogSum(logits);
    std::vector<float> ranked = logits;
    std::sort(ranked.rbegin(), ranked.rend());
    for (size_t i = 0; i < output.top.size(); ++i) {
      const auto [token, logprob] = output.top[i];
      ASSERT_NEAR(logprob, logits[token] - log_sum, 2 * kTolerance) << "token " << token;
      ASSERT_NEAR(logprob, ranked[i] - log_sum, 2 * kTolerance) << "place " << i;
    }
    if (!slice.sample) return;
    const auto [token, logprob] = *output.sampled;
    const auto position = static_cast<int64_t>(history.size());
    ASSERT_NEAR(logprob, logits[token] - log_sum, 2 * kTolerance) << "token " << token;
    if (token == Draw(slice, position, logits)) return;
    EXPECT_TRUE(IsNearTie(slice, position, logits, token)) << "token " << token;
    std::printf("a near-tie decided for token %d\n", token);
  }

  void ExpectCapacity() {
    const Capacity actual = engine_.capacity(), expected = model_.capacity();
    EXPECT_EQ(actual.total_blocks, expected.total_blocks);
    ASSERT_EQ(actual.free_blocks, expected.free_blocks);
    EXPECT_EQ(actual.max_prompt_tokens, expected.max_prompt_tokens);
    EXPECT_EQ(actual.sequences, expected.sequences);
    EXPECT_EQ(actual.max_sequences, expected.max_sequences);
    ASSERT_EQ(actual.not_rebuildable, expected.not_rebuildable);
  }

  // What the batch has, as seen before it is applied.
  void Count(const MeantBatch& meant) {
    int whole = 0, partial = 0;
    for (const SequenceSlice& slice : meant.batch.slices) {
      const LayerRange all{0, model_.options().layers};
      ++(slice.layers.value_or(all) == all ? whole : partial);
      if (!slice.hidden_states.empty()) ++seen_["hidden states in"];
      if (slice.sample && slice.sampling.temperature > 0) ++seen_["draws"];
      const ModelSequence* held = model_.Find(meant.batch.client_id, slice.sequence_id);
      if (held != nullptr && model_.WouldReplace(*held, slice.first_position)) {
        ++seen_["shared blocks replaced"];
      }
    }
    if (whole > 0 && partial > 0) ++seen_["whole and partial slices in one batch"];
  }
  void CountRefusal(const MeantBatch& meant, const absl::Status& refusal) {
    const ErrorReason reason = DetailOf(refusal).reason;
    const int begun = static_cast<int>(std::count_if(
        meant.batch.slices.begin(), meant.batch.slices.end(), [&](const SequenceSlice& slice) {
          return model_.Find(meant.batch.client_id, slice.sequence_id) == nullptr;
        }));
    const bool full = model_.capacity().sequences + begun > kSequences;
    if (reason == ErrorReason::kPositionMismatch) ++seen_["positions refused"];
    if (reason == ErrorReason::kUnknownSequence) ++seen_["unknown sequences"];
    if (reason != ErrorReason::kKvCapacity) return;
    if (full) ++seen_["sequences beyond the limit"];
    if (meant.batch.slices.size() > 1) ++seen_["batches of several that do not fit"];
  }

  struct Recorded {
    std::shared_ptr<MeantBatch> meant;
    std::shared_ptr<Asked> first;
  };

  Engine& engine_;
  HistoryOracle& oracle_;
  Seen& seen_;
  ContractModel model_;
  RandomSchedule schedule_;
  int asked_ = 0;
  StepNumber last_step_;
  std::vector<std::function<void()>> checks_;  // of what is on its way, in its order
  std::deque<Recorded> recorded_;
};

struct Shape {
  const char* model;
  ParallelConfig config;
};

class RandomScheduleTest : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const Golden golden, ReadGolden(GetParam().model));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden.directory, "float32"));
    ASSERT_OK_AND_ASSIGN(oracle_, HistoryOracle::Create(model_));
  }

  // A replica of its own: nothing of an earlier seed is recorded there.
  void RunSeed(uint64_t seed, int operations) {
    std::printf("seed %lu\n", static_cast<unsigned long>(seed));
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const ParallelConfig& config = GetParam().config;
    const ModelSpec& spec = model_.spec;
    LocalReplica::Options options{.config = config};
    const uint64_t block = uint64_t{2} * spec.layers * 16 * spec.head_dim * sizeof(float) *
                           std::max(1, spec.kv_heads / config.tp);
    options.context.kv_memory = block * (kBlocks / config.cp);
    options.context.limits.max_sequences = kSequences;
    ASSERT_OK_AND_ASSIGN(const auto replica, LocalReplica::Form(model_, options));
    SideBySide(seed, replica->engine(), *oracle_,
               {.layers = spec.layers,
                .max_positions = spec.max_positions,
                .max_sequences = kSequences,
                .cp = config.cp,
                .blocks_per_rank = kBlocks / config.cp},
               seen_)
        .Run(operations);
  }

  ModelSource model_;
  std::unique_ptr<HistoryOracle> oracle_;
  Seen seen_;
};

TEST_P(RandomScheduleTest, EveryAnswerIsThatOfTheSequenceAlone) {
  for (const uint64_t seed : kFixedSeeds) ASSERT_NO_FATAL_FAILURE(RunSeed(seed, kOperations));
  for (const char* const what : kMustBeSeen) {
    std::printf("%5d %s\n", seen_[what], what);
    EXPECT_GT(seen_[what], 0) << what;
  }
}

TEST_P(RandomScheduleTest, SoItIsWithASeedThatNobodyChose) {
  RunSeed(std::random_device()(), kOperations);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RandomScheduleTest,
                         ::testing::Values(Shape{"llama-mha12", {.tp = 1, .cp = 1}},
                                           Shape{"llama-mha12", {.tp = 1, .cp = 2}},
                                           Shape{"llama-gqa6", {.tp = 3, .cp = 1}}),
                         [](const auto& info) {
                           return absl::StrCat("Tp", info.param.config.tp, "Cp",
                                               info.param.config.cp);
                         });

}  // namespace
}  // namespace muster::testing
