#include "kernels/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "kernels/kernel_test_support.h"
#include "kernels/portable_exp.h"

namespace muster {
namespace {

using ::muster::testing::ForEachTarget;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;

constexpr SamplingParams kGreedy{
    .temperature = 0, .top_k = 0, .top_p = 1, .seed = 1, .position = 0};

std::vector<float> RandomLogits(int64_t vocab, uint32_t seed) {
  RandomFloats random(seed);
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& logit : logits) logit = random.Uniform(-8, 8);
  return logits;
}

SampledToken Sample(const SamplingParams& params, const std::vector<float>& logits) {
  std::vector<Candidate> scratch(logits.size());
  return SampleFromLogits(params, logits.data(), static_cast<int64_t>(logits.size()),
                          scratch.data());
}

// How often each token is drawn over many positions.
std::map<int32_t, int> Draws(SamplingParams params, const std::vector<float>& logits, int count) {
  std::map<int32_t, int> draws;
  for (int i = 0; i < count; ++i) {
    params.position = i;
    const SampledToken sampled = Sample(params, logits);
    EXPECT_EQ(sampled.status, SamplingStatus::kOk);
    ++draws[sampled.token];
  }
  return draws;
}

TEST(PhiloxTest, GivesThePublishedAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(SamplingTest, GreedyTakesTheLowestIdOfTheBest) {
  EXPECT_EQ(Sample(kGreedy, {1, 5, 2, 5, 4}).token, 1);
  EXPECT_EQ(Sample(kGreedy, {-0.0f, 0.0f}).token, 0);
  EXPECT_EQ(Sample(kGreedy, {-3, 1e-42f, 0}).token, 1);  // a subnormal is more than 0
  EXPECT_EQ(Sample(kGreedy, {-kInfinity, -1e38f}).token, 1);
}

TEST(SamplingTest, RefusesInvalidLogits) {
  for (const float invalid : {kNaN, -kNaN, kInfinity}) {
    std::vector<float> logits = RandomLogits(37, 1);
    for (const size_t place : {0, 15, 36}) {
      std::vector<float> broken = logits;
      broken[place] = invalid;
      const SampledToken sampled = Sample(kGreedy, broken);
      EXPECT_EQ(sampled.status, SamplingStatus::kInvalidLogit);
      EXPECT_EQ(sampled.token, -1);
    }
  }
}

TEST(SamplingTest, RefusesWhenEveryTokenIsMasked) {
  EXPECT_EQ(Sample(kGreedy, {-kInfinity, -kInfinity}).status, SamplingStatus::kNoCandidate);
  SamplingParams random = kGreedy;
  random.temperature = 1;
  EXPECT_EQ(Sample(random, {-kInfinity}).status, SamplingStatus::kNoCandidate);
}

TEST(SamplingTest, RefusesParametersOutOfRange) {
  const std::vector<float> logits{1, 2};
  const SamplingParams broken[] = {
      {.temperature = -1, .top_k = 0, .top_p = 1, .seed = 0, .position = 0},
      {.temperature = kNaN, .top_k = 0, .top_p = 1, .seed = 0, .position = 0},
      {.temperature = kInfinity, .top_k = 0, .top_p = 1, .seed = 0, .position = 0},
      {.temperature = 1, .top_k = -1, .top_p = 1, .seed = 0, .position = 0},
      {.temperature = 1, .top_k = 0, .top_p = 0, .seed = 0, .position = 0},
      {.temperature = 1, .top_k = 0, .top_p = 1.5f, .seed = 0, .position = 0},
      {.temperature = 1, .top_k = 0, .top_p = kNaN, .seed = 0, .position = 0},
  };
  for (const SamplingParams& params : broken) {
    EXPECT_EQ(Sample(params, logits).status, SamplingStatus::kInvalidParams);
  }
}

TEST(SamplingTest, DrawsFollowTheTemperedSoftmax) {
  const std::vector<float> logits{0.5f, -1, 2, 0, 1.5f};
  const int draws = 20000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SCOPED_TRACE(temperature);
    const SamplingParams params{
        .temperature = temperature, .top_k = 0, .top_p = 1, .seed = 99, .position = 0};
    const std::map<int32_t, int> counts = Draws(params, logits, draws);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit / temperature);
    for (int32_t id = 0; id < 5; ++id) {
      const double p = std::exp(logits[static_cast<size_t>(id)] / temperature) / sum;
      const double deviation = std::sqrt(draws * p * (1 - p));
      const auto found = counts.find(id);
      EXPECT_NEAR(found == counts.end() ? 0 : found->second, draws * p, 5 * deviation) << id;
    }
  }
}

TEST(SamplingTest, TopKKeepsTheBestOnly) {
  const SamplingParams params{.temperature = 3, .top_k = 2, .top_p = 1, .seed = 7, .position = 0};
  const std::map<int32_t, int> counts = Draws(params, {1, 3, 2, 3, 3}, 500);
  ASSERT_EQ(counts.size(), 2u);  // of three equals, the lowest ids
  EXPECT_EQ(counts.count(1), 1u);
  EXPECT_EQ(counts.count(3), 1u);
}

TEST(SamplingTest, TopPKeepsTheShortestSufficientPrefix) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const float half = std::log(2.0f);
  const std::vector<float> logits{2 * half, half, 0, 0};
  const auto kept = [&](float top_p, int64_t top_k) {
    return Draws({.temperature = 1, .top_k = top_k, .top_p = top_p, .seed = 3, .position = 0},
                 logits, 400)
        .size();
  };
  EXPECT_EQ(kept(0.0001f, 0), 1u);
  EXPECT_EQ(kept(0.49f, 0), 1u);
  EXPECT_EQ(kept(0.51f, 0), 2u);
  EXPECT_EQ(kept(0.74f, 0), 2u);
  EXPECT_EQ(kept(0.80f, 0), 3u);
  EXPECT_EQ(kept(0.90f, 0), 4u);
  EXPECT_EQ(kept(1.0f, 0), 4u);
  // After top_k = 2 the probabilities are 2/3 and 1/3.
  EXPECT_EQ(kept(0.6f, 2), 1u);
  EXPECT_EQ(kept(0.7f, 2), 2u);
}

TEST(SamplingTest, TopPIsMeasuredAfterTheTemperature) {
  const std::vector<float> logits{2, 1, 0};
  SamplingParams params{.temperature = 1, .top_k = 0, .top_p = 0.6f, .seed = 3, .position = 0};
  EXPECT_EQ(Draws(params, logits, 300).size(), 1u);  // 0.665 at temperature 1
  params.temperature = 2;
  EXPECT_EQ(Draws(params, logits, 300).size(), 2u);  // 0.506 at temperature 2
}

TEST(SamplingTest, TokenDependsOnSeedAndPositionOnly) {
  const std::vector<float> logits(1000, 0.0f);
  SamplingParams params{.temperature = 1, .top_k = 0, .top_p = 1, .seed = 5, .position = 6};
  const int32_t token = Sample(params, logits).token;
  EXPECT_EQ(Sample(params, logits).token, token);
  params.position = 7;
  EXPECT_NE(Sample(params, logits).token, token);
  params.position = 6;
  params.seed = 5 + (uint64_t{1} << 40);
  EXPECT_NE(Sample(params, logits).token, token);
}

// Cuts the logits into shards, as ranks hold them, and samples from what they send.
SampledToken SampleSharded(const SamplingParams& params, const std::vector<float>& logits,
                           int shards, int64_t k) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  std::vector<std::vector<Candidate>> lists(static_cast<size_t>(shards));
  std::vector<const Candidate*> pointers;
  std::vector<int64_t> counts(static_cast<size_t>(shards));
  std::vector<LogitSummary> summaries(static_cast<size_t>(shards));
  std::vector<ShardDraw> draws(static_cast<size_t>(shards));
  for (size_t i = 0; i < lists.size(); ++i) {
    const int64_t begin = vocab * static_cast<int64_t>(i) / shards;
    const int64_t end = vocab * static_cast<int64_t>(i + 1) / shards;
    lists[i].resize(static_cast<size_t>(k));
    ShardTopKCpu({logits.data() + begin,
                  end - begin,
                  begin,
                  k,
                  InverseTemperature(params),
                  lists[i].data(),
                  &counts[i],
                  &summaries[i],
                  &draws[i],
                  {params.seed, params.position}});
    pointers.push_back(lists[i].data());
  }
  if (DrawsFromAll(params)) return {SamplingStatus::kOk, MergeDraws(draws.data(), shards).id};
  std::vector<Candidate> merged(static_cast<size_t>(k));
  const int64_t count = MergeCandidates(pointers.data(), counts.data(), shards, k, merged.data());
  return SampleFromCandidates(params, merged.data(), count,
                              MergeSummaries(summaries.data(), shards, InverseTemperature(params)));
}

TEST(SamplingTest, ShardingChangesNoToken) {
  const std::vector<float> logits = RandomLogits(5003, 11);
  const SamplingParams cases[] = {
      kGreedy,
      {.temperature = 0.7f, .top_k = 40, .top_p = 1, .seed = 1, .position = 0},
      {.temperature = 0.7f, .top_k = 40, .top_p = 0.8f, .seed = 2, .position = 0},
      {.temperature = 0.2f, .top_k = 0, .top_p = 0.3f, .seed = 3, .position = 0},
      {.temperature = 0.01f, .top_k = 1000, .top_p = 0.7f, .seed = 4, .position = 0},
      {.temperature = 1, .top_k = 0, .top_p = 1, .seed = 5, .position = 0},
      {.temperature = 7, .top_k = 0, .top_p = 1, .seed = 6, .position = 0},
  };
  for (SamplingParams params : cases) {
    for (params.position = 0; params.position < 50; ++params.position) {
      const SampledToken whole = Sample(params, logits);
      ASSERT_EQ(whole.status, SamplingStatus::kOk);
      for (const int shards : {1, 2, 3, 7}) {
        const SampledToken sharded = SampleSharded(params, logits, shards, 64);
        ASSERT_EQ(sharded.status, SamplingStatus::kOk);
        EXPECT_EQ(sharded.token, whole.token) << "position " << params.position;
      }
    }
  }
}

TEST(SamplingTest, ListTooShortForTheFiltersIsNoticed) {
  const std::vector<float> logits(1000, 0.0f);
  const auto status = [&](int64_t top_k, float top_p) {
    const SamplingParams params{
        .temperature = 1, .top_k = top_k, .top_p = top_p, .seed = 1, .position = 0};
    EXPECT_EQ(Sample(params, logits).status, SamplingStatus::kOk);
    return SampleSharded(params, logits, 2, 64).status;
  };
  EXPECT_EQ(status(0, 0.5f), SamplingStatus::kMoreNeeded);
  EXPECT_EQ(status(65, 1.0f), SamplingStatus::kMoreNeeded);
  EXPECT_EQ(status(65, 0.99f), SamplingStatus::kMoreNeeded);
  EXPECT_EQ(status(65, 0.01f), SamplingStatus::kOk);  // whatever the last token weighs
  EXPECT_EQ(status(64, 1.0f), SamplingStatus::kOk);
  EXPECT_EQ(status(0, 0.05f), SamplingStatus::kOk);
}

TEST(SamplingTest, LogProbabilitiesAreOfTheUnmodifiedDistribution) {
  const std::vector<float> logits = RandomLogits(1001, 4);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  Candidate best[5];
  int64_t count = 0;
  LogitSummary summary{};
  ShardTopKCpu({logits.data(), 1001, 0, 5, 0.3f, best, &count, &summary});
  float logprobs[5];
  LogProbabilities(best, count, summary, logprobs);
  for (int i = 0; i < 5; ++i) {
    EXPECT_NEAR(logprobs[i], best[i].logit - std::log(sum), 1e-5);
  }
}

void ExpectSameTopK(const std::vector<float>& logits, int64_t k) {
  SCOPED_TRACE(::testing::Message() << logits.size() << " logits, k " << k);
  std::vector<Candidate> expected(static_cast<size_t>(k));
  std::vector<Candidate> actual(static_cast<size_t>(k));
  int64_t expected_count = -1;
  int64_t actual_count = -1;
  LogitSummary expected_summary{};
  LogitSummary actual_summary{};
  const int64_t vocab = static_cast<int64_t>(logits.size());
  ShardTopKReference(
      {logits.data(), vocab, 100, k, 0.5f, expected.data(), &expected_count, &expected_summary});
  ShardTopKCpu({logits.data(), vocab, 100, k, 0.5f, actual.data(), &actual_count, &actual_summary});
  ASSERT_EQ(actual_count, expected_count);
  for (size_t i = 0; i < static_cast<size_t>(expected_count); ++i) {
    EXPECT_EQ(actual[i].id, expected[i].id);
    EXPECT_EQ(actual[i].logit, expected[i].logit);
  }
  EXPECT_EQ(actual_summary.count, expected_summary.count);
  EXPECT_EQ(actual_summary.invalid_count, expected_summary.invalid_count);
  if (expected_summary.invalid_count > 0) return;
  EXPECT_EQ(actual_summary.max, expected_summary.max);
  // Up to 64 terms in a row are added in float32; exponents are up to 16 and rounded once or twice.
  EXPECT_NEAR(actual_summary.sum, expected_summary.sum, 1e-5 * expected_summary.sum);
  EXPECT_NEAR(actual_summary.sum_tempered, expected_summary.sum_tempered,
              1e-5 * expected_summary.sum_tempered);
}

TEST(ShardTopKTest, MatchesReferenceForEverySize) {
  ForEachTarget([] {
    for (const int64_t vocab : {0, 1, 2, 15, 16, 17, 31, 100, 1023, 5000}) {
      for (const int64_t k : {0, 1, 2, 5, 64, 6000}) {
        ExpectSameTopK(RandomLogits(vocab, static_cast<uint32_t>(vocab + k)), k);
      }
    }
  });
}

TEST(ShardTopKTest, MatchesReferenceForTiesMasksAndInvalidLogits) {
  ForEachTarget([] {
    std::vector<float> logits = RandomLogits(333, 6);
    for (float& logit : logits) logit = std::round(logit);
    ExpectSameTopK(logits, 20);
    for (size_t i = 0; i < logits.size(); i += 3) logits[i] = -kInfinity;
    ExpectSameTopK(logits, 20);
    ExpectSameTopK(logits, 400);
    logits[40] = logits[332] = kNaN;
    logits[200] = kInfinity;
    ExpectSameTopK(logits, 20);
    ExpectSameTopK(std::vector<float>(50, -kInfinity), 3);
    ExpectSameTopK({0.0f, -0.0f, 0.0f, -0.0f}, 2);
    ExpectSameTopK({3e38f, -3e38f, 1e-42f, -1e-42f}, 4);
  });
}

// The draw of ShardTopKCpu against the reference's, bit for bit.
void ExpectSameDraw(const std::vector<float>& logits, float inverse_temperature, DrawKey key) {
  SCOPED_TRACE(::testing::Message()
               << logits.size() << " logits, inverse temperature " << inverse_temperature
               << ", seed " << key.seed << ", position " << key.position);
  ShardDraw draws[2];
  for (ShardDraw& draw : draws) {
    int64_t count = 0;
    LogitSummary summary{};
    const ShardTopKParams params{.logits = logits.data(),
                                 .vocab_local = static_cast<int64_t>(logits.size()),
                                 .vocab_begin = 1000,
                                 .k = 0,
                                 .inverse_temperature = inverse_temperature,
                                 .candidates = nullptr,
                                 .candidate_count = &count,
                                 .summary = &summary,
                                 .draw = &draw,
                                 .key = key};
    &draw == draws ? ShardTopKReference(params) : ShardTopKCpu(params);
  }
  EXPECT_EQ(draws[1].id, draws[0].id);
  EXPECT_EQ(draws[1].score, draws[0].score);
  EXPECT_EQ(draws[1].logit, draws[0].logit);
}

TEST(ShardDrawTest, MatchesReferenceForEverySizeAndTemperature) {
  ForEachTarget([] {
    for (const int64_t vocab : {0, 1, 2, 15, 16, 17, 31, 100, 1023, 50000}) {
      for (const float inverse_temperature : {1e-30f, 0.01f, 0.7f, 1.0f, 3.0f, 900.0f, 1e6f}) {
        const auto seed = static_cast<uint32_t>(vocab * 7);
        ExpectSameDraw(RandomLogits(vocab, seed), inverse_temperature,
                       {.seed = uint64_t{seed} << 30, .position = vocab * vocab * 5});
      }
    }
  });
}

TEST(ShardDrawTest, NoBoundRulesTheWinnerOut) {
  ForEachTarget([] {
    // Every token may win each draw, and the words of all orders of magnitude occur.
    const std::vector<float> equal(700, -3.0f);
    for (int64_t position = 0; position < 1000; ++position) {
      ExpectSameDraw(equal, 1.5f, {.seed = 77, .position = position});
    }
  });
}

TEST(ShardDrawTest, MatchesReferenceForTiesMasksAndInvalidLogits) {
  ForEachTarget([] {
    const DrawKey key{.seed = 3, .position = 4};
    std::vector<float> logits = RandomLogits(333, 6);
    for (size_t i = 0; i < logits.size(); i += 3) logits[i] = -kInfinity;
    ExpectSameDraw(logits, 2, key);
    logits[40] = logits[332] = kNaN;
    logits[200] = kInfinity;
    ExpectSameDraw(logits, 2, key);
    ExpectSameDraw(std::vector<float>(50, -kInfinity), 1, key);
    ExpectSameDraw(std::vector<float>(50, kNaN), 1, key);
    // Beyond what float32 holds when tempered; the noise is lost in most.
    ExpectSameDraw({3e38f, -3e38f, 1e-42f, -1e-42f}, 100, key);
    ExpectSameDraw(std::vector<float>(50, -3e38f), 100, key);
    ExpectSameDraw(std::vector<float>(50, 3e38f), 100, key);
    ExpectSameDraw(std::vector<float>(50, 1e30f), 1, key);
    ExpectSameDraw(RandomLogits(500, 9), 0, key);
  });
}

TEST(ShardDrawTest, NoiseIsBelowTheBoundOfItsFirstWord) {
  const DrawKey key{.seed = 123456789, .position = 1};
  for (int32_t id = 0; id < 300000; ++id) {
    const uint32_t n = ~DrawWords(key, id)[0];
    if (n == 0) continue;
    const float bound = -std::log(static_cast<float>(n) * 0x1p-32f);
    ASSERT_LE(GumbelNoise(key, id), bound + kDrawSlack) << id;
  }
}

TEST(PortableExpTest, IsTheExponential) {
  for (double x = -700; x < 700; x += 0.37) {
    EXPECT_NEAR(PortableExp(x) / std::exp(x), 1, 1e-15) << x;
  }
  EXPECT_EQ(PortableExp(0), 1);
  EXPECT_EQ(PortableExp(-800), 0);
  EXPECT_EQ(PortableExp(-kInfinity), 0);
  EXPECT_EQ(PortableExp(800), kInfinity);
  EXPECT_TRUE(std::isnan(PortableExp(kNaN)));
}

TEST(MergeSummariesTest, EmptyShardsChangeNothing) {
  const std::vector<float> logits{1, 2, 3};
  int64_t count = 0;
  LogitSummary summaries[2];
  ShardTopKCpu({logits.data(), 3, 0, 0, 1, nullptr, &count, &summaries[0]});
  ShardTopKCpu({logits.data(), 0, 3, 0, 1, nullptr, &count, &summaries[1]});
  const LogitSummary merged = MergeSummaries(summaries, 2, 1);
  EXPECT_EQ(merged.max, 3);
  EXPECT_EQ(merged.sum, summaries[0].sum);
  EXPECT_EQ(merged.count, 3);
}

}  // namespace
}  // namespace muster
