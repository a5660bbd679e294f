// What the models of two epochs of one rank share.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/dense_decoder.h"
#include "worker/model/model_spec.h"

namespace muster {
namespace {

const ModelConfig kConfig = {.architecture = "LlamaForCausalLM",
                             .layers = 2,
                             .hidden = 12,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 4,
                             .ffn = 14,
                             .vocabulary = 22,
                             .max_positions = 32,
                             .rms_norm_eps = 1e-5,
                             .qkv_bias = true,
                             .o_bias = true};

constexpr size_t kTp = static_cast<size_t>(WeightGroup::kTp);
constexpr size_t kStage = static_cast<size_t>(WeightGroup::kStage);

class SharedWeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_ = Write("first", RandomLlama(kConfig, DType::kFloat32, 7));
    ASSERT_NE(checkpoint_, nullptr);
  }

  std::unique_ptr<Checkpoint> Write(const std::string& name, const NamedTensors& tensors) {
    const std::string directory = ::testing::TempDir() + "/shared_weights_test/" + name;
    std::filesystem::create_directories(directory);
    EXPECT_OK(WriteFile(directory + "/model.safetensors", SafetensorsBytes(tensors)));
    auto checkpoint = Checkpoint::Open(directory);
    EXPECT_OK(checkpoint);
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }

  std::unique_ptr<LoadedModel> Load(ParallelConfig parallel, int rank, Ledger& ledger,
                                    const LoadedModel* previous, LoadProgress progress = nullptr) {
    const ModelSpec spec = ToSpec(kConfig, *checkpoint_, DType::kFloat32);
    auto loaded = LoadDenseDecoder({.config = kConfig,
                                    .checkpoint = *checkpoint_,
                                    .shape = *RankShape::Create(spec, parallel, GlobalRank(rank)),
                                    .dtype = DType::kFloat32,
                                    .device = device_,
                                    .ledger = ledger,
                                    .progress = std::move(progress),
                                    .previous = previous});
    EXPECT_OK(loaded);
    return *std::move(loaded);
  }

  // Bit by bit.
  static bool SameContents(const LoadedModel& a, const LoadedModel& b) {
    for (size_t i = 0; i < kWeightGroups; ++i) {
      const Buffer& left = a.weights().groups[i]->buffer;
      const Buffer& right = b.weights().groups[i]->buffer;
      if (left.size() != right.size()) return false;
      if (std::memcmp(left.data(), right.data(), left.size()) != 0) return false;
    }
    return true;
  }

  static const void* DataOf(const LoadedModel& model, size_t group) {
    return model.weights().groups[group]->buffer.data();
  }

  CpuDevice device_{CpuDeviceOptions{}};
  std::unique_ptr<Checkpoint> checkpoint_;
  Ledger first_ledger_, second_ledger_, fresh_ledger_;
};

TEST_F(SharedWeightsTest, WithTheSameTpAndAnotherCpWhatTpAloneDecidesIsShared) {
  const auto first = Load({.tp = 2, .cp = 1}, 1, first_ledger_, nullptr);
  EXPECT_EQ(first->shared_weight_bytes(), 0u);
  std::vector<std::pair<uint64_t, uint64_t>> seen;
  const auto second =
      Load({.tp = 2, .cp = 2}, 1, second_ledger_, first.get(), [&](uint64_t done, uint64_t total) {
        seen.emplace_back(done, total);
        return absl::OkStatus();
      });
  EXPECT_EQ(DataOf(*second, kTp), DataOf(*first, kTp));
  EXPECT_NE(DataOf(*second, kStage), DataOf(*first, kStage));
  EXPECT_EQ(second->shared_weight_bytes(), second->weights().groups[kTp]->buffer.size());
  const uint64_t read = second->weights().groups[kStage]->buffer.size();
  EXPECT_EQ(seen.back(), std::pair(read, read));
  EXPECT_TRUE(SameContents(*second, *Load({.tp = 2, .cp = 2}, 1, fresh_ledger_, nullptr)));
}

TEST_F(SharedWeightsTest, TheSameShapeSharesEverythingAndReadsNothing) {
  const auto first = Load({.tp = 2, .cp = 2}, 3, first_ledger_, nullptr);
  std::vector<std::pair<uint64_t, uint64_t>> seen;
  const auto second =
      Load({.tp = 2, .cp = 2}, 3, second_ledger_, first.get(), [&](uint64_t done, uint64_t total) {
        seen.emplace_back(done, total);
        return absl::OkStatus();
      });
  for (const size_t group : {kTp, kStage}) EXPECT_EQ(DataOf(*second, group), DataOf(*first, group));
  EXPECT_EQ(second->shared_weight_bytes(), second->weights().bytes());
  EXPECT_EQ(seen, (std::vector<std::pair<uint64_t, uint64_t>>{{0, 0}}));
}

TEST_F(SharedWeightsTest, AnotherTpSharesNothing) {
  const auto first = Load({.tp = 1, .cp = 1}, 0, first_ledger_, nullptr);
  const auto second = Load({.tp = 2, .cp = 1}, 0, second_ledger_, first.get());
  for (const size_t group : {kTp, kStage}) EXPECT_NE(DataOf(*second, group), DataOf(*first, group));
  EXPECT_EQ(second->shared_weight_bytes(), 0u);
}

TEST_F(SharedWeightsTest, TheSamePlaceInStageIsSharedWhateverTpIs) {
  const auto first = Load({.tp = 1, .cp = 2}, 0, first_ledger_, nullptr);
  const auto second = Load({.tp = 2, .cp = 1}, 0, second_ledger_, first.get());
  EXPECT_NE(DataOf(*second, kTp), DataOf(*first, kTp));
  EXPECT_EQ(DataOf(*second, kStage), DataOf(*first, kStage));
  EXPECT_TRUE(SameContents(*second, *Load({.tp = 2, .cp = 1}, 0, fresh_ledger_, nullptr)));
}

TEST_F(SharedWeightsTest, AnotherCheckpointSharesNothing) {
  const auto first = Load({}, 0, first_ledger_, nullptr);
  NamedTensors more = RandomLlama(kConfig, DType::kFloat32, 8);
  more["unused"] = {.shape = {1}, .values = {1}};
  checkpoint_ = Write("other", more);
  ASSERT_NE(checkpoint_, nullptr);
  EXPECT_EQ(Load({}, 0, second_ledger_, first.get())->shared_weight_bytes(), 0u);
}

TEST_F(SharedWeightsTest, SharedMemoryOutlivesTheModelThatLoadedItAndIsChargedToEach) {
  auto first = Load({.tp = 2, .cp = 1}, 0, first_ledger_, nullptr);
  auto second = Load({.tp = 2, .cp = 2}, 0, second_ledger_, first.get());
  EXPECT_EQ(first_ledger_.total(), first->weights().bytes());
  EXPECT_EQ(second_ledger_.Entries(),
            (std::vector<LedgerEntry>{{"weights", second->weights().bytes()}}));
  first.reset();
  EXPECT_EQ(first_ledger_.total(), 0u);
  EXPECT_EQ(second_ledger_.total(), second->weights().bytes());
  const auto fresh = Load({.tp = 2, .cp = 2}, 0, fresh_ledger_, nullptr);
  EXPECT_TRUE(SameContents(*second, *fresh));
  const auto third = Load({.tp = 2, .cp = 1}, 0, first_ledger_, second.get());
  EXPECT_EQ(DataOf(*third, kTp), DataOf(*second, kTp));
  second.reset();
  EXPECT_EQ(second_ledger_.total(), 0u);
  EXPECT_TRUE(SameContents(*third, *Load({.tp = 2, .cp = 1}, 0, fresh_ledger_, nullptr)));
}

TEST_F(SharedWeightsTest, ALoadThatIsGivenUpLeavesItsPredecessorAsItWas) {
  const auto first = Load({.tp = 2, .cp = 1}, 0, first_ledger_, nullptr);
  const ModelSpec spec = ToSpec(kConfig, *checkpoint_, DType::kFloat32);
  const auto second = LoadDenseDecoder(
      {.config = kConfig,
       .checkpoint = *checkpoint_,
       .shape = *RankShape::Create(spec, {.tp = 2, .cp = 2}, GlobalRank(0)),
       .dtype = DType::kFloat32,
       .device = device_,
       .ledger = second_ledger_,
       .progress = [](uint64_t, uint64_t) { return absl::CancelledError("cancelled"); },
       .previous = first.get()});
  EXPECT_STATUS(second.status(), absl::StatusCode::kCancelled, "cancelled");
  EXPECT_EQ(second_ledger_.total(), 0u);
  EXPECT_EQ(first_ledger_.total(), first->weights().bytes());
  EXPECT_TRUE(SameContents(*first, *Load({.tp = 2, .cp = 1}, 0, fresh_ledger_, nullptr)));
}

}  // namespace
}  // namespace muster
