#include "worker/model/weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/dense_decoder_weights.h"
#include "worker/model/model_spec.h"

namespace muster {
namespace {

// Nothing divides by 2 or 3 but the heads.
constexpr int kHidden = 10;
constexpr int kHeadDim = 4;
const ModelConfig kConfig = {.architecture = "LlamaForCausalLM",
                             .layers = 2,
                             .hidden = kHidden,
                             .heads = 6,
                             .kv_heads = 3,
                             .head_dim = kHeadDim,
                             .ffn = 7,
                             .vocabulary = 11,
                             .max_positions = 32,
                             .rms_norm_eps = 1e-5};

// Rows [n, k] of floats.
struct Dense {
  int64_t n = 0;
  int64_t k = 0;
  std::vector<float> values;
  friend bool operator==(const Dense&, const Dense&) = default;
};

float ElementOf(const Matrix& matrix, int64_t index) {
  if (matrix.dtype == DType::kFloat32) return static_cast<const float*>(matrix.data)[index];
  return static_cast<float>(static_cast<const BFloat16*>(matrix.data)[index]);
}

Dense RowsOf(const Matrix& matrix, int64_t begin, int64_t end) {
  Dense dense = {.n = end - begin, .k = matrix.k};
  for (int64_t i = begin * matrix.k; i < end * matrix.k; ++i) {
    dense.values.push_back(ElementOf(matrix, i));
  }
  return dense;
}
Dense AllOf(const Matrix& matrix) { return RowsOf(matrix, 0, matrix.n); }

void AppendRows(Dense& whole, const Dense& part) {
  whole.n += part.n;
  whole.k = part.k;
  whole.values.insert(whole.values.end(), part.values.begin(), part.values.end());
}

void AppendColumns(Dense& whole, const Dense& part) {
  Dense wider = {.n = part.n, .k = whole.k + part.k};
  for (int64_t row = 0; row < part.n; ++row) {
    const auto left = whole.values.begin() + row * whole.k;
    const auto right = part.values.begin() + row * part.k;
    wider.values.insert(wider.values.end(), left, left + whole.k);
    wider.values.insert(wider.values.end(), right, right + part.k);
  }
  whole = wider;
}

class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/weights_test/" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(directory_);
  }

  void Write(const NamedTensors& tensors) {
    tensors_ = tensors;
    ASSERT_OK(WriteFile(directory_ + "/model.safetensors", SafetensorsBytes(tensors)));
    auto checkpoint = Checkpoint::Open(directory_);
    ASSERT_OK(checkpoint);
    checkpoint_ = *std::move(checkpoint);
  }

  absl::StatusOr<DenseWeights> Load(const ModelConfig& config, ParallelConfig parallel, int rank,
                                    DType dtype, LoadProgress progress = nullptr) {
    const ModelSpec spec = ToSpec(config, *checkpoint_, dtype);
    return LoadDenseWeights({.config = config,
                             .checkpoint = *checkpoint_,
                             .shape = *RankShape::Create(spec, parallel, GlobalRank(rank)),
                             .dtype = dtype,
                             .device = device_,
                             .ledger = ledger_,
                             .progress = progress});
  }

  Dense TensorOf(const std::string& name) const {
    const TensorValues& tensor = tensors_.at(name);
    return {.n = tensor.shape[0], .k = tensor.shape[1], .values = tensor.values};
  }

  std::string directory_;
  NamedTensors tensors_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Ledger ledger_;
  CpuDevice device_{CpuDeviceOptions{}};
};

TEST_F(WeightsTest, ALoadThatIsGivenUpEndsWithTheReasonAndHoldsNothing) {
  Write(RandomLlama(kConfig, DType::kFloat32, 7));
  const auto weights = Load(kConfig, {}, 0, DType::kFloat32, [](uint64_t, uint64_t) {
    return absl::UnavailableError("rank 1 was lost");
  });
  EXPECT_STATUS(weights.status(), absl::StatusCode::kUnavailable, "rank 1 was lost");
  EXPECT_EQ(ledger_.total(), 0u);
}

TEST_F(WeightsTest, ShardsOfAllRanksMakeTheWhole) {
  Write(RandomLlama(kConfig, DType::kFloat32, 7));
  const ParallelConfig parallel = {.tp = 3, .cp = 2};
  Dense embedding, gate, up, down, q, k;
  std::vector<Dense> o_shards(6);
  for (int rank = 0; rank < 6; ++rank) {
    const auto weights = Load(kConfig, parallel, rank, DType::kFloat32);
    ASSERT_OK(weights);
    const DenseLayerWeights& layer = weights->layers[1];
    AppendRows(embedding, AllOf(weights->embedding));
    AppendRows(gate, RowsOf(layer.gate_up.weights, 0, layer.gate_up.weights.n / 2));
    AppendRows(up,
               RowsOf(layer.gate_up.weights, layer.gate_up.weights.n / 2, layer.gate_up.weights.n));
    AppendColumns(down, AllOf(layer.down.weights));
    const int tp_rank = rank % 3;
    const int cp_rank = rank / 3;
    o_shards[tp_rank * 2 + cp_rank] = AllOf(layer.o.weights);
    if (cp_rank != 0) continue;  // as its peer of TP rank and CP rank 0
    AppendRows(q, RowsOf(layer.qkv.weights, 0, 2 * kHeadDim));
    AppendRows(k, RowsOf(layer.qkv.weights, 2 * kHeadDim, 3 * kHeadDim));
  }
  Dense o;
  for (const Dense& shard : o_shards) AppendColumns(o, shard);
  EXPECT_EQ(embedding, TensorOf("model.embed_tokens.weight"));
  EXPECT_EQ(gate, TensorOf("model.layers.1.mlp.gate_proj.weight"));
  EXPECT_EQ(up, TensorOf("model.layers.1.mlp.up_proj.weight"));
  EXPECT_EQ(down, TensorOf("model.layers.1.mlp.down_proj.weight"));
  EXPECT_EQ(q, TensorOf("model.layers.1.self_attn.q_proj.weight"));
  EXPECT_EQ(k, TensorOf("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_EQ(o, TensorOf("model.layers.1.self_attn.o_proj.weight"));
}

std::vector<float> Floats(const float* values, int64_t count) { return {values, values + count}; }

void Append(std::vector<float>& whole, const std::vector<float>& part) {
  whole.insert(whole.end(), part.begin(), part.end());
}

TEST_F(WeightsTest, BiasesAreShardedWithTheirRowsAndHeldOnceWhereSumsAreMade) {
  ModelConfig biased = kConfig;
  biased.qkv_bias = biased.o_bias = biased.mlp_bias = biased.qk_norm = true;
  Write(RandomLlama(biased, DType::kFloat32, 7));
  const std::string name = "model.layers.1.";
  const auto tensor = [&](const std::string& of) { return tensors_.at(name + of).values; };
  std::vector<float> q, k, v, gate, up;
  for (int rank = 0; rank < 6; ++rank) {
    const auto weights = Load(biased, {.tp = 3, .cp = 2}, rank, DType::kBFloat16);
    ASSERT_OK(weights);
    const DenseLayerWeights& layer = weights->layers[1];
    EXPECT_EQ(Floats(layer.q_norm, kHeadDim), tensor("self_attn.q_norm.weight"));
    EXPECT_EQ(Floats(layer.k_norm, kHeadDim), tensor("self_attn.k_norm.weight"));
    const int64_t ffn = layer.gate_up.weights.n / 2;
    Append(gate, Floats(layer.gate_up.bias, ffn));
    Append(up, Floats(layer.gate_up.bias + ffn, ffn));
    EXPECT_EQ(layer.o.bias == nullptr, rank != 0);
    EXPECT_EQ(layer.down.bias == nullptr, rank != 0);
    if (rank == 0) {
      EXPECT_EQ(Floats(layer.o.bias, kHidden), tensor("self_attn.o_proj.bias"));
      EXPECT_EQ(Floats(layer.down.bias, kHidden), tensor("mlp.down_proj.bias"));
    }
    if (rank >= 3) continue;  // as its peer of the same TP rank
    Append(q, Floats(layer.qkv.bias, 2 * kHeadDim));
    Append(k, Floats(layer.qkv.bias + 2 * kHeadDim, kHeadDim));
    Append(v, Floats(layer.qkv.bias + 3 * kHeadDim, kHeadDim));
  }
  EXPECT_EQ(q, tensor("self_attn.q_proj.bias"));
  EXPECT_EQ(k, tensor("self_attn.k_proj.bias"));
  EXPECT_EQ(v, tensor("self_attn.v_proj.bias"));
  EXPECT_EQ(gate, tensor("mlp.gate_proj.bias"));
  EXPECT_EQ(up, tensor("mlp.up_proj.bias"));
}

TEST_F(WeightsTest, AModelThatClaimsABiasAndHasNoneIsRefused) {
  Write(RandomLlama(kConfig, DType::kFloat32, 7));
  ModelConfig biased = kConfig;
  biased.qkv_bias = true;
  EXPECT_STATUS(Load(biased, {}, 0, DType::kFloat32).status(), absl::StatusCode::kNotFound,
                "tensor 'model.layers.0.self_attn.q_proj.bias' is missing");
}

TEST_F(WeightsTest, TiedEmbeddingsAreHeldOnce) {
  ModelConfig tied = kConfig;
  tied.tied_embeddings = true;
  Write(RandomLlama(tied, DType::kBFloat16, 7));
  const auto weights = Load(tied, {}, 0, DType::kBFloat16);
  ASSERT_OK(weights);
  EXPECT_EQ(weights->lm_head.weights.data, weights->embedding.data);

  Write(RandomLlama(kConfig, DType::kBFloat16, 7));
  const auto untied = Load(kConfig, {}, 0, DType::kBFloat16);
  ASSERT_OK(untied);
  EXPECT_NE(untied->lm_head.weights.data, untied->embedding.data);
}

TEST_F(WeightsTest, EveryTypeBecomesTheModels) {
  for (const DType stored : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    NamedTensors tensors = RandomLlama(kConfig, stored, 7);
    // Exact in every type, and what float16 has of its own: subnormals.
    std::vector<float>& values = tensors["lm_head.weight"].values;
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0x1p-20f;
    Write(tensors);
    for (const DType held : {DType::kFloat32, DType::kBFloat16}) {
      const auto weights = Load(kConfig, {}, 0, held);
      ASSERT_OK(weights);
      EXPECT_EQ(weights->lm_head.weights.dtype, held);
      EXPECT_EQ(AllOf(weights->lm_head.weights), TensorOf("lm_head.weight")) << Name(stored);
      const TensorValues& norm = tensors_.at("model.norm.weight");
      for (int i = 0; i < kHidden; ++i) {
        EXPECT_NEAR(weights->final_norm[i], norm.values[i], 0.005f);
      }
    }
  }
}

TEST_F(WeightsTest, RefusesATensorOfAnotherShapeBeforeItAllocates) {
  NamedTensors tensors = RandomLlama(kConfig, DType::kFloat32, 7);
  tensors["model.layers.1.mlp.up_proj.weight"].shape = {kHidden, 7};
  Write(tensors);
  const auto status = Load(kConfig, {}, 0, DType::kFloat32).status();
  EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument,
                "model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' has shape [10, 7], "
                "config.json asks for [7, 10]");
  EXPECT_EQ(ledger_.total(), 0u);
  tensors.erase("model.norm.weight");
  tensors["model.layers.1.mlp.up_proj.weight"].shape = {7, kHidden};
  Write(tensors);
  EXPECT_STATUS(Load(kConfig, {}, 0, DType::kFloat32).status(), absl::StatusCode::kNotFound,
                "tensor 'model.norm.weight' is missing");
}

TEST_F(WeightsTest, ProgressEndsWithTheBytesHeld) {
  Write(RandomLlama(kConfig, DType::kFloat32, 7));
  std::vector<std::pair<uint64_t, uint64_t>> seen;
  const auto weights = Load(kConfig, {}, 0, DType::kFloat32, [&](uint64_t done, uint64_t total) {
    seen.emplace_back(done, total);
    return absl::OkStatus();
  });
  ASSERT_OK(weights);
  ASSERT_FALSE(seen.empty());
  const uint64_t bytes = weights->memory.bytes();
  EXPECT_EQ(seen.back(), std::pair(bytes, bytes));
  EXPECT_EQ(ledger_.total(), bytes);
  EXPECT_EQ(ledger_.Entries().front().tag, "weights");
}

}  // namespace
}  // namespace muster
