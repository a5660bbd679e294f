#include "worker/engine/retry_record.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

std::shared_ptr<const ForwardResult> Result(uint64_t step, size_t logits = 0) {
  ForwardResult result;
  result.step = StepNumber(step);
  result.outputs.resize(1);
  result.outputs[0].logits.resize(logits);
  return std::make_shared<const ForwardResult>(std::move(result));
}

TEST(RetryRecordTest, FindsAnswersByClientAndRequest) {
  RetryRecord record({});
  record.Keep("client", "1", {.body = 7, .result = Result(41)});
  ASSERT_NE(record.Find("client", "1"), nullptr);
  EXPECT_EQ(record.Find("client", "1")->body, 7u);
  EXPECT_EQ(record.Find("client", "1")->result->step, StepNumber(41));
  EXPECT_EQ(record.Find("client", "2"), nullptr);
  EXPECT_EQ(record.Find("clien", "t1"), nullptr);
}

TEST(RetryRecordTest, KeepsTheLastSixtyFour) {
  RetryRecord record({});
  for (int i = 0; i < 100; ++i) record.Keep("client", absl::StrCat(i), {.result = Result(i)});
  EXPECT_EQ(record.size(), 64u);
  EXPECT_EQ(record.Find("client", "35"), nullptr);
  EXPECT_NE(record.Find("client", "36"), nullptr);
}

TEST(RetryRecordTest, ForgetsTheOldestBeyondItsBytes) {
  RetryRecord record({.answers = 64, .bytes = 10000});
  record.Keep("client", "a", {.result = Result(1, 1000)});
  record.Keep("client", "b", {.result = Result(2, 1000)});
  EXPECT_EQ(record.size(), 2u);
  record.Keep("client", "c", {.result = Result(3, 1000)});
  EXPECT_EQ(record.Find("client", "a"), nullptr);
  EXPECT_EQ(record.size(), 2u);
  // One that is too large by itself leaves nothing.
  record.Keep("client", "d", {.result = Result(4, 5000)});
  EXPECT_EQ(record.size(), 0u);
  record.Keep("client", "e", {.result = Result(5)});
  EXPECT_EQ(record.size(), 1u);
}

TEST(BodyDigestTest, EveryFieldCounts) {
  const ForwardBatch batch{.client_id = "client",
                           .slices = {{.sequence_id = "s", .token_ids = {1, 2}}},
                           .request_id = "1"};
  std::set<uint64_t> digests = {BodyDigest(batch)};
  const auto other = [&](auto change) {
    ForwardBatch changed = batch;
    change(changed, changed.slices[0]);
    EXPECT_TRUE(digests.insert(BodyDigest(changed)).second) << digests.size();
  };
  using B = ForwardBatch;
  using S = SequenceSlice;
  other([](B& b, S&) { b.expected_epoch = Epoch(0); });
  other([](B& b, S&) { b.expected_epoch = Epoch(1); });
  other([](B& b, S&) { b.slices.push_back({}); });
  other([](B&, S& s) { s.sequence_id = "t"; });
  other([](B&, S& s) { s.token_ids = {1, 3}; });
  other([](B&, S& s) { s.token_ids = {1}; });
  other([](B&, S& s) { s.first_position = 1; });
  other([](B&, S& s) { s.sample = true; });
  other([](B&, S& s) { s.top_n = 1; });
  other([](B&, S& s) { s.return_logits = true; });
  other([](B&, S& s) { s.return_hidden_states = 0; });
  other([](B&, S& s) { s.return_hidden_states = 1; });
  other([](B&, S& s) { s.layers = {0, 1}; });
  other([](B&, S& s) { s.hidden_states = {1}; });
  other([](B&, S& s) { s.sampling.temperature = 1; });
  other([](B&, S& s) { s.sampling.top_k = 1; });
  other([](B&, S& s) { s.sampling.top_p = 0.5; });
  other([](B&, S& s) { s.sampling.seed = 1; });
  ForwardBatch again = batch;
  again.client_id = "another";
  again.request_id = "2";
  EXPECT_EQ(BodyDigest(again), BodyDigest(batch));
}

}  // namespace
}  // namespace muster
