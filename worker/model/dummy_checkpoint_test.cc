#include "worker/model/dummy_checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/dense_decoder_weights.h"
#include "worker/model/model_source.h"
#include "worker/model/model_spec.h"

namespace muster {
namespace {

const ModelConfig kConfig = {.architecture = "LlamaForCausalLM",
                             .layers = 2,
                             .hidden = 50,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 10,
                             .ffn = 37,
                             .vocabulary = 61,
                             .max_positions = 32,
                             .rms_norm_eps = 1e-5,
                             .qkv_bias = true,
                             .qk_norm = true};

std::vector<float> Floats(const float* values, int64_t count) { return {values, values + count}; }

std::vector<float> Floats(const Matrix& matrix) {
  return Floats(static_cast<const float*>(matrix.data), matrix.n * matrix.k);
}

// Rows [begin, end) and columns [left, right) of a matrix.
std::vector<float> Part(const Matrix& matrix, ShardRange rows, ShardRange columns) {
  std::vector<float> part;
  for (int row = rows.begin; row < rows.end; ++row) {
    const float* const values = static_cast<const float*>(matrix.data) + row * matrix.k;
    part.insert(part.end(), values + columns.begin, values + columns.end);
  }
  return part;
}

class DummyCheckpointTest : public ::testing::Test {
 protected:
  DenseWeights Load(const ModelConfig& config, ParallelConfig parallel, int rank) {
    const DummyCheckpoint checkpoint(config);
    const ModelSpec spec = ToSpec(config, checkpoint, DType::kFloat32);
    auto weights = LoadDenseWeights({.config = config,
                                     .checkpoint = checkpoint,
                                     .shape = *RankShape::Create(spec, parallel, GlobalRank(rank)),
                                     .dtype = DType::kFloat32,
                                     .device = device_,
                                     .ledger = ledger_});
    EXPECT_OK(weights);
    return weights.ok() ? *std::move(weights) : DenseWeights();
  }

  Ledger ledger_;
  CpuDevice device_{CpuDeviceOptions{}};
};

TEST_F(DummyCheckpointTest, RanksOfATopologyHoldTheModelOfOne) {
  const ParallelConfig parallel = {.tp = 2, .cp = 2};
  const DenseWeights whole = Load(kConfig, {}, 0);
  ASSERT_EQ(whole.layers.size(), 2u);
  const ModelSpec spec = ToSpec(kConfig, DummyCheckpoint(kConfig), DType::kFloat32);
  const int hidden = kConfig.hidden, head_dim = kConfig.head_dim, ffn = kConfig.ffn;
  for (int rank = 0; rank < 4; ++rank) {
    const DenseWeights shard = Load(kConfig, parallel, rank);
    ASSERT_EQ(shard.layers.size(), 2u);
    const RankShape shape = *RankShape::Create(spec, parallel, GlobalRank(rank));
    const DenseLayerWeights& mine = shard.layers[1];
    const DenseLayerWeights& all = whole.layers[1];
    EXPECT_EQ(Floats(shard.embedding), Part(whole.embedding, shape.vocabulary, {0, hidden}));
    EXPECT_EQ(Floats(shard.lm_head.weights),
              Part(whole.lm_head.weights, shape.vocabulary, {0, hidden}));
    EXPECT_EQ(Floats(mine.o.weights), Part(all.o.weights, {0, hidden}, shape.o_columns));
    EXPECT_EQ(Floats(mine.down.weights), Part(all.down.weights, {0, hidden}, shape.ffn));
    const int rows = shape.ffn.size();
    EXPECT_EQ(Part(mine.gate_up.weights, {0, rows}, {0, hidden}),
              Part(all.gate_up.weights, shape.ffn, {0, hidden}));
    EXPECT_EQ(Part(mine.gate_up.weights, {rows, 2 * rows}, {0, hidden}),
              Part(all.gate_up.weights, {ffn + shape.ffn.begin, ffn + shape.ffn.end}, {0, hidden}));
    const ShardRange q = {shape.heads.begin * head_dim, shape.heads.end * head_dim};
    EXPECT_EQ(Part(mine.qkv.weights, {0, q.size()}, {0, hidden}),
              Part(all.qkv.weights, q, {0, hidden}));
    EXPECT_EQ(Floats(mine.qkv.bias, q.size()), Floats(all.qkv.bias + q.begin, q.size()));
  }
}

TEST_F(DummyCheckpointTest, NormsAreOneAndTheRestIsAsInAFreshModel) {
  const DenseWeights weights = Load(kConfig, {}, 0);
  ASSERT_EQ(weights.layers.size(), 2u);
  const std::vector<float> ones(kConfig.hidden, 1);
  EXPECT_EQ(Floats(weights.final_norm, kConfig.hidden), ones);
  EXPECT_EQ(Floats(weights.layers[0].input_norm, kConfig.hidden), ones);
  EXPECT_EQ(Floats(weights.layers[1].post_norm, kConfig.hidden), ones);
  EXPECT_EQ(Floats(weights.layers[1].k_norm, kConfig.head_dim),
            std::vector<float>(kConfig.head_dim, 1));
  for (const Matrix& matrix : {weights.embedding, weights.lm_head.weights,
                               weights.layers[0].qkv.weights, weights.layers[1].down.weights}) {
    const std::vector<float> values = Floats(matrix);
    double sum = 0, squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
    const double count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 5 * 0.02 / std::sqrt(count));
    EXPECT_NEAR(std::sqrt(squares / count), 0.02, 5 * 0.02 / std::sqrt(count));
  }
  EXPECT_NE(Floats(weights.embedding), Floats(weights.lm_head.weights));
  EXPECT_NE(Floats(weights.layers[0].o.weights), Floats(weights.layers[1].o.weights));
}

TEST_F(DummyCheckpointTest, AModelThatTiesItsEmbeddingsHasNoOutputOfItsOwn) {
  ModelConfig tied = kConfig;
  tied.tied_embeddings = true;
  const DenseWeights weights = Load(tied, {}, 0);
  EXPECT_EQ(weights.lm_head.weights.data, weights.embedding.data);
  EXPECT_STATUS(DummyCheckpoint(tied).Find("lm_head.weight", {61, 50}).status(),
                absl::StatusCode::kNotFound, "tensor 'lm_head.weight' is missing");
  EXPECT_OK(DummyCheckpoint(kConfig).Find("lm_head.weight", {61, 50}));
}

class DummySourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_ = {.directory = ::testing::TempDir() + "/dummy_source_test/" +
                             ::testing::UnitTest::GetInstance()->current_test_info()->name(),
                .load_format = LoadFormat::kDummy};
    std::filesystem::remove_all(options_.directory);
    std::filesystem::create_directories(options_.directory);
  }
  void WriteConfig(DType dtype) {
    ASSERT_OK(WriteFile(options_.directory + "/config.json", LlamaConfigJson(kConfig, dtype)));
  }

  ModelSource::Options options_;
};

TEST_F(DummySourceTest, ConfigAloneIsEnough) {
  WriteConfig(DType::kBFloat16);
  const auto source = ModelSource::Open(options_);
  ASSERT_OK(source);
  EXPECT_EQ(source->dtype, DType::kBFloat16);
  EXPECT_EQ(source->spec.hidden, kConfig.hidden);
  EXPECT_STATUS(ModelSource::Open(options_.directory, "auto").status(), absl::StatusCode::kNotFound,
                "neither model.safetensors nor");
}

TEST_F(DummySourceTest, WithoutAConfigThereIsNoModel) {
  EXPECT_STATUS(ModelSource::Open(options_).status(), absl::StatusCode::kNotFound,
                "no config.json");
}

TEST_F(DummySourceTest, ItsDigestIsThatOfNoFiles) {
  WriteConfig(DType::kFloat32);
  ASSERT_OK(WriteFile(options_.directory + "/model.safetensors",
                      SafetensorsBytes(RandomLlama(kConfig, DType::kFloat32, 7))));
  const auto dummy = ModelSource::Open(options_);
  const auto again = ModelSource::Open(options_);
  const auto files = ModelSource::Open(options_.directory, "auto");
  ASSERT_OK(dummy);
  ASSERT_OK(again);
  ASSERT_OK(files);
  EXPECT_EQ(dummy->spec.digest, again->spec.digest);
  EXPECT_NE(dummy->spec.digest, files->spec.digest);
}

TEST_F(DummySourceTest, Float16IsKeptWhereTheDeviceHasIt) {
  WriteConfig(DType::kFloat16);
  EXPECT_EQ(ModelSource::Open(options_)->dtype, DType::kFloat32);
  options_.has_float16 = true;
  EXPECT_EQ(ModelSource::Open(options_)->dtype, DType::kFloat16);
}

TEST(LoadFormat, IsOneOfThree) {
  EXPECT_EQ(*ParseLoadFormat("auto"), LoadFormat::kSafetensors);
  EXPECT_EQ(*ParseLoadFormat("safetensors"), LoadFormat::kSafetensors);
  EXPECT_EQ(*ParseLoadFormat("dummy"), LoadFormat::kDummy);
  EXPECT_STATUS(ParseLoadFormat("pt").status(), absl::StatusCode::kInvalidArgument,
                "'pt' is none of auto, safetensors, dummy");
}

}  // namespace
}  // namespace muster
