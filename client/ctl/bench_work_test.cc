#include "client/ctl/bench_work.h"

#include <gtest/gtest.h>

namespace muster::ctl {
namespace {

constexpr uint64_t kLayerElements = 2 * (8 * 4 * (2 * 2 + 2 * 1) + 3 * 8 * 16);
constexpr uint64_t kVocabularyElements = 100 * 8;

v1::ModelSpec Model(uint64_t embeddings) {
  v1::ModelSpec model;
  model.set_layers(2);
  model.set_hidden(8);
  model.set_heads(2);
  model.set_kv_heads(1);
  model.set_head_dim(4);
  model.set_ffn(16);
  model.set_vocabulary(100);
  model.set_dtype("bfloat16");
  model.set_weight_bytes(2 * (kLayerElements + embeddings * kVocabularyElements));
  return model;
}

v1::ReplicaStatus Replica(uint32_t tp, std::vector<uint64_t> held) {
  v1::ReplicaStatus replica;
  replica.mutable_topology()->mutable_config()->set_tp(tp);
  for (const uint64_t bytes : held) {
    auto* ledger = replica.add_ledgers();
    auto* weights = ledger->add_entries();
    weights->set_tag("weights");
    weights->set_bytes(bytes);
    ledger->add_entries()->set_tag("kv");
  }
  return replica;
}

TEST(BenchWork, AStepReadsWhatTheRanksHoldAndTheKeysAndValues) {
  const BenchWork work(Model(1), Replica(1, {3000, 4000}));
  // Of a token: keys and values, 2 layers, 1 head of 4 elements of 2 bytes.
  EXPECT_EQ(work.Decode(1, 0).bytes, 7000u);
  EXPECT_EQ(work.Decode(3, 10).bytes, 7000u + 3 * 10 * 32);
}

TEST(BenchWork, WithoutLedgersTheWeightsCountOnce) {
  EXPECT_EQ(BenchWork(Model(1), Replica(1, {})).Decode(1, 0).bytes, Model(1).weight_bytes());
}

TEST(BenchWork, AnEmbeddingThatIsNoOutputMatrixIsNotRead) {
  const BenchWork work(Model(2), Replica(1, {}));
  EXPECT_EQ(work.Decode(1, 0).bytes, Model(1).weight_bytes());
}

TEST(BenchWork, RanksThatShareAHeadReadItEach) {
  const BenchWork work(Model(1), Replica(2, {1000}));
  EXPECT_EQ(work.Decode(1, 1).bytes, 1000u + 2 * 32);
}

TEST(BenchWork, AWindowBoundsWhatIsRead) {
  v1::ModelSpec model = Model(1);
  model.set_sliding_window(4);
  const BenchWork work(model, Replica(1, {1000}));
  EXPECT_EQ(work.Decode(1, 100).bytes, 1000u + 4 * 32);
}

TEST(BenchWork, APromptMultipliesEveryMatrixAndItsOwnTokens) {
  const BenchWork work(Model(1), Replica(1, {}));
  const double pair = 4.0 * 2 * 2 * 4;
  EXPECT_DOUBLE_EQ(work.Prefill(1).flops, 2.0 * (kLayerElements + kVocabularyElements) + pair);
  EXPECT_DOUBLE_EQ(work.Prefill(10).flops,
                   2.0 * (10 * kLayerElements + kVocabularyElements) + 55 * pair);
  EXPECT_DOUBLE_EQ(work.Prefill(10).bytes, static_cast<double>(Model(1).weight_bytes()));
  EXPECT_DOUBLE_EQ(work.Decode(3, 10).flops,
                   2.0 * 3 * (kLayerElements + kVocabularyElements) + 3 * 10 * pair);
}

}  // namespace
}  // namespace muster::ctl
