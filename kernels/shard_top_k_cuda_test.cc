#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/shard_top_k.h"

namespace muster {
namespace {

using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;

// A shard on the host, its reference, and its copy on the device.
class Shard {
 public:
  // Takes part in a draw where there is a key.
  Shard(std::vector<float> logits, int64_t vocab_begin, int64_t k, float inverse_temperature,
        std::optional<DrawKey> key = std::nullopt)
      : logits_(std::move(logits)),
        device_logits_(logits_.data(), logits_.size() * sizeof(float), 4 * (k % 4)),
        candidates_(k * sizeof(Candidate)),
        candidate_count_(sizeof(int64_t)),
        summary_(sizeof(LogitSummary)),
        draw_(sizeof(ShardDraw)) {
    params_ = {.logits = device_logits_.as<float>(),
               .vocab_local = static_cast<int64_t>(logits_.size()),
               .vocab_begin = vocab_begin,
               .k = k,
               .inverse_temperature = inverse_temperature,
               .candidates = candidates_.as<Candidate>(),
               .candidate_count = candidate_count_.as<int64_t>(),
               .summary = summary_.as<LogitSummary>(),
               .draw = key.has_value() ? draw_.as<ShardDraw>() : nullptr,
               .key = key.value_or(DrawKey())};
  }

  const ShardTopKParams& params() const { return params_; }

  void ExpectMatchesReference() const {
    SCOPED_TRACE(::testing::Message() << params_.vocab_local << " logits, k " << params_.k);
    std::vector<Candidate> expected(params_.k);
    int64_t expected_count = 0;
    LogitSummary expected_summary;
    ShardTopKParams reference = params_;
    reference.logits = logits_.data();
    reference.candidates = expected.data();
    reference.candidate_count = &expected_count;
    reference.summary = &expected_summary;
    ShardDraw expected_draw;
    if (params_.draw != nullptr) reference.draw = &expected_draw;
    ShardTopKReference(reference);
    ExpectCandidates(expected, expected_count);
    ExpectSummary(expected_summary);
    if (params_.draw != nullptr) ExpectDraw(expected_draw);
    EXPECT_TRUE(device_logits_.GuardsIntact() && candidates_.GuardsIntact() &&
                candidate_count_.GuardsIntact() && summary_.GuardsIntact() && draw_.GuardsIntact());
  }

  std::vector<unsigned char> ResultBits() const {
    std::vector<unsigned char> bits(candidates_.size() + summary_.size() + draw_.size());
    candidates_.Download(bits.data());
    summary_.Download(bits.data() + candidates_.size());
    draw_.Download(bits.data() + candidates_.size() + summary_.size());
    return bits;
  }

 private:
  void ExpectCandidates(const std::vector<Candidate>& expected, int64_t expected_count) const {
    int64_t count = -1;
    candidate_count_.Download(&count);
    ASSERT_EQ(count, expected_count);
    std::vector<Candidate> actual(params_.k);
    candidates_.Download(actual.data());
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(actual[i].id, expected[i].id) << "candidate " << i;
      ASSERT_EQ(actual[i].logit, expected[i].logit) << "candidate " << i;
      ASSERT_EQ(std::signbit(actual[i].logit), std::signbit(expected[i].logit)) << i;
    }
  }
  void ExpectSummary(const LogitSummary& expected) const {
    LogitSummary actual;
    summary_.Download(&actual);
    EXPECT_EQ(actual.max, expected.max);
    EXPECT_EQ(actual.count, expected.count);
    EXPECT_EQ(actual.invalid_count, expected.invalid_count);
    EXPECT_NEAR(actual.sum, expected.sum, 1e-6 * expected.sum);
    EXPECT_NEAR(actual.sum_tempered, expected.sum_tempered, 1e-6 * expected.sum_tempered);
  }

  // The same winner, or one whose score is the expected one's but for the rounding of two
  // logarithms.
  void ExpectDraw(const ShardDraw& expected) const {
    SCOPED_TRACE(::testing::Message()
                 << "seed " << params_.key.seed << ", position " << params_.key.position);
    ShardDraw actual;
    draw_.Download(&actual);
    if (expected.id < 0) {
      EXPECT_EQ(actual.id, expected.id);
      EXPECT_EQ(actual.score, expected.score);
      return;
    }
    const int64_t index = actual.id - params_.vocab_begin;
    ASSERT_TRUE(index >= 0 && index < params_.vocab_local) << "token " << actual.id;
    EXPECT_EQ(actual.logit, logits_[index]) << "token " << actual.id;
    const double tolerance = 1e-14 * (1 + std::abs(expected.score));
    EXPECT_NEAR(actual.score, expected.score, tolerance);
    if (actual.id == expected.id) return;
    std::printf("near tie: token %d for %d\n", actual.id, expected.id);
    const double score =
        double{logits_[index]} * params_.inverse_temperature + GumbelNoise(params_.key, actual.id);
    EXPECT_NEAR(score, expected.score, tolerance)
        << "token " << actual.id << " for " << expected.id;
  }

  std::vector<float> logits_;
  DeviceBytes device_logits_;
  DeviceBytes candidates_;
  DeviceBytes candidate_count_;
  DeviceBytes summary_;
  DeviceBytes draw_;
  ShardTopKParams params_;
};

using Shards = std::vector<std::unique_ptr<Shard>>;

void Launch(const Shards& shards) {
  std::vector<ShardTopKParams> params;
  int64_t vocab = 0;
  int64_t k = 0;
  for (const auto& shard : shards) {
    params.push_back(shard->params());
    vocab = std::max(vocab, shard->params().vocab_local);
    k = std::max(k, shard->params().k);
  }
  const int count = static_cast<int>(shards.size());
  const DeviceBytes scratch(ShardTopKScratchBytes(count, vocab, k));
  CudaFinish(ShardTopKCuda(params.data(), count, scratch.data(), nullptr));
  EXPECT_TRUE(scratch.GuardsIntact());
}

void Expect(Shards shards) {
  Launch(shards);
  for (const auto& shard : shards) shard->ExpectMatchesReference();
}

void ExpectOne(std::vector<float> logits, int64_t k, float inverse_temperature = 1) {
  Shards shards;
  shards.push_back(std::make_unique<Shard>(std::move(logits), 1000, k, inverse_temperature));
  Expect(std::move(shards));
}

uint32_t FreshSeed() {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  return seed;
}

std::vector<float> Uniform(RandomFloats& random, int64_t vocab, float low = -15, float high = 15) {
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = random.Uniform(low, high);
  return logits;
}

TEST(ShardTopKCudaTest, MatchesReferenceForEverySizeAndK) {
  RandomFloats random(FreshSeed());
  for (const int64_t vocab : {0, 1, 2, 31, 257, 4095, 4096, 4097, 32003, 128256, 262144}) {
    for (const int64_t k : {0, 1, 2, 7, 64, 65, 255, 256}) {
      ExpectOne(Uniform(random, vocab), k, random.Uniform(0.3f, 3));
    }
  }
}

TEST(ShardTopKCudaTest, TiesGoToTheLowerId) {
  RandomFloats random(FreshSeed());
  for (const int64_t vocab : {100, 5000, 40000}) {
    for (const int64_t k : {1, 5, 100, 256}) {
      std::vector<float> few_values(vocab);
      for (float& logit : few_values) logit = static_cast<float>(random.Integer(-2, 2)) * 0.5f;
      for (float& logit : few_values) logit = logit == 0 && random.Integer(0, 1) ? -0.0f : logit;
      ExpectOne(few_values, k, 0.7f);
      ExpectOne(std::vector<float>(vocab, -3.25f), k, 2);
      ExpectOne(std::vector<float>(vocab, 0.0f), k);
    }
  }
}

TEST(ShardTopKCudaTest, MaskedTokensAreNoCandidates) {
  RandomFloats random(FreshSeed());
  for (const int64_t kept : {0, 1, 100, 255, 256, 300, 9000}) {
    std::vector<float> logits = Uniform(random, 20000);
    for (int64_t i = 0; i < 20000; ++i) {
      if (i * kept / 20000 == (i + 1) * kept / 20000) logits[i] = -kInfinity;
    }
    ExpectOne(logits, 256);
    ExpectOne(logits, 40);
  }
}

TEST(ShardTopKCudaTest, InvalidLogitsAreCounted) {
  RandomFloats random(FreshSeed());
  for (int round = 0; round < 4; ++round) {
    std::vector<float> logits = Uniform(random, 9001);
    for (int i = 0; i < 50; ++i) {
      logits[random.Integer(0, 9000)] = kNaN;
      logits[random.Integer(0, 9000)] = -kNaN;
      logits[random.Integer(0, 9000)] = kInfinity;
      logits[random.Integer(0, 9000)] = -kInfinity;
    }
    ExpectOne(logits, 33);
  }
  ExpectOne(std::vector<float>(5000, kNaN), 8);
}

TEST(ShardTopKCudaTest, ExtremeLogitsAndSums) {
  RandomFloats random(FreshSeed());
  const float largest = std::numeric_limits<float>::max();
  ExpectOne({largest, -largest, 0, 1e-45f, -1e-45f, -0.0f, largest, 1e-38f, -1e-38f}, 9);
  ExpectOne(std::vector<float>(3000, -largest), 5, 0.5f);
  // Everything that matters lies far below the maximum, where float32 rounds its distance.
  for (const float below : {5.3f, 9.7f, 11.7f}) {
    std::vector<float> logits(200000, 20.0f - below);
    logits[77777] = 20.0f;
    ExpectOne(logits, 3, 1.01f);
  }
  ExpectOne(Uniform(random, 100000, 0, 11), 3, 1e-3f);
  ExpectOne(Uniform(random, 100000, -5000, 5000), 100, 30);
}

TEST(ShardTopKCudaTest, ManyShardsOfUnequalSizes) {
  RandomFloats random(FreshSeed());
  for (const int count : {2, 5, 32}) {
    Shards shards;
    for (int i = 0; i < count; ++i) {
      shards.push_back(std::make_unique<Shard>(Uniform(random, random.Integer(0, 30000)),
                                               random.Integer(0, 100000), random.Integer(0, 256),
                                               random.Uniform(0.5f, 2)));
    }
    Expect(std::move(shards));
  }
}

void ExpectDraws(const std::vector<float>& logits, float inverse_temperature, DrawKey key,
                 int draws) {
  Shards shards;
  for (int i = 0; i < draws; ++i, ++key.position) {
    shards.push_back(std::make_unique<Shard>(logits, 1000, 2, inverse_temperature, key));
    if (shards.size() == kMaxCudaShards || i + 1 == draws) Expect(std::exchange(shards, {}));
  }
}

TEST(ShardTopKCudaTest, DrawsWhatTheReferenceDraws) {
  RandomFloats random(FreshSeed());
  for (const int64_t vocab : {0, 1, 2, 31, 257, 4095, 4096, 4097, 32003, 128256, 262144}) {
    for (const float inverse_temperature : {1e-30f, 0.1f, 1.0f, 1.7f, 300.0f}) {
      const DrawKey key{.seed = static_cast<uint64_t>(random.Integer(0, 1 << 30)) << 20,
                        .position = random.Integer(0, 1 << 30) << 10};
      ExpectDraws(Uniform(random, vocab), inverse_temperature, key, vocab < 100000 ? 8 : 2);
    }
  }
}

TEST(ShardTopKCudaTest, NoBoundRulesTheWinnerOut) {
  RandomFloats random(FreshSeed());
  const DrawKey key{.seed = static_cast<uint64_t>(random.Integer(0, 1 << 30))};
  ExpectDraws(std::vector<float>(700, -3), 1.5f, key, 640);
  ExpectDraws(std::vector<float>(9000, 40), 1, key, 320);
}

TEST(ShardTopKCudaTest, DrawsAmongMaskedInvalidAndExtremeLogits) {
  RandomFloats random(FreshSeed());
  const DrawKey key{.seed = static_cast<uint64_t>(random.Integer(0, 1 << 30))};
  std::vector<float> logits = Uniform(random, 9001);
  for (int64_t i = 0; i < 9001; i += random.Integer(1, 3)) logits[i] = -kInfinity;
  ExpectDraws(logits, 0.8f, key, 32);
  for (int64_t i = 0; i < 9001; i += random.Integer(100, 300)) logits[i] = kNaN;
  logits[77] = kInfinity;
  ExpectDraws(logits, 0.8f, key, 32);
  for (const float value : {-kInfinity, kNaN, kInfinity}) {
    ExpectDraws(std::vector<float>(5000, value), 1, key, 2);
  }
  const float largest = std::numeric_limits<float>::max();
  ExpectDraws({largest, -largest, 0, 1e-45f, -1e-45f, -0.0f, largest}, 1, key, 8);
  for (const float value : {largest, -largest, 1e30f}) {
    ExpectDraws(std::vector<float>(5000, value), 100, key, 2);
  }
  ExpectDraws(Uniform(random, 5000), 0, key, 8);
}

TEST(ShardTopKCudaTest, ShardsOfADrawStandBesideOthers) {
  RandomFloats random(FreshSeed());
  Shards shards;
  for (int i = 0; i < kMaxCudaShards; ++i) {
    const DrawKey key{.seed = static_cast<uint64_t>(i), .position = i};
    shards.push_back(std::make_unique<Shard>(
        Uniform(random, random.Integer(0, 30000)), random.Integer(0, 100000),
        random.Integer(0, 256), random.Uniform(0.5f, 2),
        random.Integer(0, 1) != 0 ? std::optional<DrawKey>(key) : std::nullopt));
  }
  Expect(std::move(shards));
}

TEST(ShardTopKCudaTest, SameBitsFromRunToRun) {
  RandomFloats random(FreshSeed());
  Shards shards;
  shards.push_back(std::make_unique<Shard>(Uniform(random, 128256), 0, 256, 0.9f, DrawKey{}));
  Launch(shards);
  const std::vector<unsigned char> first = shards[0]->ResultBits();
  for (int i = 0; i < 20; ++i) {
    Launch(shards);
    ASSERT_EQ(shards[0]->ResultBits(), first) << "run " << i;
  }
}

TEST(ShardTopKCudaTest, RefusesWhatItHasNoRoomFor) {
  const ShardTopKParams params{.k = 257};
  EXPECT_FALSE(ShardTopKCuda(&params, 1, nullptr, nullptr).ok());
  const ShardTopKParams large{.vocab_local = kMaxCudaShardVocab + 1};
  EXPECT_FALSE(ShardTopKCuda(&large, 1, nullptr, nullptr).ok());
  EXPECT_FALSE(ShardTopKCuda(nullptr, kMaxCudaShards + 1, nullptr, nullptr).ok());
}

}  // namespace
}  // namespace muster
