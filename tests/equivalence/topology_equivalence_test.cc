// However a model is cut over ranks, it writes the same tokens: every shape that fits, fused and
// unfused, by graphs and eagerly, its prompt in one piece and in pieces.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/support/local_replica.h"
#include "tests/support/status_matchers.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/golden.h"
#include "worker/model/rank_shape.h"

namespace muster {
namespace {

using testing::LocalReplica;
using testing::TokensOf;
using testing::Write;

constexpr int kMaxWorld = 8;
constexpr int kWholePrompt = 512;
// Nearer to each other than this, two logits of a bfloat16 model may change places when sums are
// cut differently: 8 bits of mantissa on logits of up to about 8, through two layers.
constexpr float kNearTie = 0.25f;

// How one text is written.
struct Way {
  ParallelConfig config;
  Fusion fusion = Fusion::kFused;
  bool graphs = true;
  int chunk = kWholePrompt;
};

std::string Name(const ParallelConfig& config) {
  return absl::StrCat("Tp", config.tp, "Cp", config.cp, "Replicas", config.replicas);
}

std::string Name(const Way& way) {
  return absl::StrCat(Name(way.config), way.fusion == Fusion::kFused ? " fused" : " unfused",
                      way.graphs ? " graphs" : " eager", " chunks of ", way.chunk);
}

// The replicas of `way`, on devices numbered through: the second begins where the first ends.
absl::StatusOr<std::vector<std::unique_ptr<LocalReplica>>> Form(const ModelSource& model,
                                                                const Way& way) {
  std::vector<std::unique_ptr<LocalReplica>> replicas;
  for (int i = 0; i < way.config.replicas; ++i) {
    LocalReplica::Options options{.config = way.config,
                                  .epoch = Epoch(static_cast<uint64_t>(i) + 1),
                                  .replica = ReplicaIndex(i),
                                  .first_device = i * way.config.world_size()};
    options.context.fusion = way.fusion;
    options.context.graphs = way.graphs;
    options.context.kv_memory = uint64_t{2} << 20;
    MUSTER_ASSIGN_OR_RETURN(auto replica, LocalReplica::Form(model, options));
    replicas.push_back(std::move(replica));
  }
  return replicas;
}

void ExpectGoldenTokens(const std::string& name, const Way& way, const std::vector<int>& chunks) {
  const auto golden = ReadGolden(name);
  ASSERT_OK(golden);
  const auto model = ModelSource::Open(golden->directory, "float32");
  ASSERT_OK(model);
  const auto replicas = Form(*model, way);
  ASSERT_OK(replicas);
  for (const int chunk : chunks) {
    SCOPED_TRACE(absl::StrCat(name, " ", Name(way), " in chunks of ", chunk));
    for (const auto& replica : *replicas) {
      const auto written = Write(replica->engine(), golden->prompt,
                                 static_cast<int>(golden->tokens.size()), {.chunk = chunk});
      ASSERT_OK(written);
      EXPECT_EQ(TokensOf(*written), golden->tokens);
    }
  }
}

std::vector<ParallelConfig> AllShapes() {
  std::vector<ParallelConfig> shapes;
  for (int replicas : {1, 2}) {
    for (int tp : {1, 2, 3, 4}) {
      for (int cp : {1, 2, 3, 4}) {
        if (tp * cp * replicas > kMaxWorld) continue;
        shapes.push_back({.tp = tp, .cp = cp, .replicas = replicas});
      }
    }
  }
  return shapes;
}

class EveryShapeTest : public ::testing::TestWithParam<ParallelConfig> {};

TEST_P(EveryShapeTest, WritesTheGoldenTokensInEveryWay) {
  for (const Fusion fusion : {Fusion::kFused, Fusion::kUnfused}) {
    for (const bool graphs : {true, false}) {
      ExpectGoldenTokens("llama-mha12", {GetParam(), fusion, graphs}, {kWholePrompt, 1, 7, 64});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EveryShapeTest, ::testing::ValuesIn(AllShapes()),
                         [](const auto& info) { return Name(info.param); });

// Every two choices meet at least once.
TEST(PairwiseTest, TheOtherLlamasWriteTheirGoldenTokens) {
  const struct {
    const char* model;
    Way way;
  } kCases[] = {
      {"llama-gqa8", {{.tp = 1, .cp = 2}, Fusion::kFused, true, 7}},
      {"llama-gqa8", {{.tp = 2, .cp = 4}, Fusion::kUnfused, false, 64}},
      {"llama-gqa8", {{.tp = 4, .cp = 1, .replicas = 2}, Fusion::kFused, false, kWholePrompt}},
      {"llama-gqa8", {{.tp = 1, .cp = 4}, Fusion::kUnfused, true, 1}},
      {"llama-gqa6", {{.tp = 3, .cp = 2}, Fusion::kUnfused, true, 64}},
      {"llama-gqa6", {{.tp = 3, .cp = 1, .replicas = 2}, Fusion::kFused, true, 1}},
      {"llama-gqa6", {{.tp = 1, .cp = 4}, Fusion::kFused, false, 7}},
      {"llama-gqa6", {{.tp = 6, .cp = 1}, Fusion::kUnfused, false, kWholePrompt}},
      {"llama-mqa12", {{.tp = 4, .cp = 2}, Fusion::kFused, true, kWholePrompt}},
      {"llama-mqa12", {{.tp = 3, .cp = 2}, Fusion::kUnfused, false, 7}},
      {"llama-mqa12", {{.tp = 1, .cp = 3, .replicas = 2}, Fusion::kFused, false, 1}},
      {"llama-mqa12", {{.tp = 2, .cp = 1}, Fusion::kUnfused, true, 64}},
      {"llama-bias", {{.tp = 3, .cp = 2}, Fusion::kFused, true, 7}},
      {"llama-yarn", {{.tp = 1, .cp = 2}, Fusion::kUnfused, true, 64}},
      {"llama-dynamic", {{.tp = 3, .cp = 1}, Fusion::kFused, false, 7}},
  };
  for (const auto& it : kCases) ExpectGoldenTokens(it.model, it.way, {it.way.chunk});
}

// The architectures beside Llama, each in every shape that its heads can be cut into.
class EveryArchitectureTest : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryArchitectureTest, WritesTheGoldenTokensInEveryShapeAndWay) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_OK(golden);
  const auto model = ModelSource::Open(golden->directory, "float32");
  ASSERT_OK(model);
  int shapes = 0;
  for (const ParallelConfig& config : AllShapes()) {
    if (config.replicas > 1 || !RankShape::Create(model->spec, config, GlobalRank(0)).ok()) {
      continue;
    }
    ++shapes;
    for (const Fusion fusion : {Fusion::kFused, Fusion::kUnfused}) {
      for (const bool graphs : {true, false}) {
        ExpectGoldenTokens(GetParam(), {config, fusion, graphs}, {kWholePrompt, 1, 7, 64});
      }
    }
  }
  EXPECT_GE(shapes, 6);
}

INSTANTIATE_TEST_SUITE_P(Architectures, EveryArchitectureTest,
                         ::testing::Values("mistral", "qwen2", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

// What a step costs without its layers can be measured so.
TEST(WithoutLayersTest, EveryShapeWritesTheSameTokens) {
  const ModelConfig config = {.hidden = 24,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_dim = 6,
                              .ffn = 8,
                              .vocabulary = 41,
                              .max_positions = 128,
                              .rms_norm_eps = 1e-5};
  const std::string directory = ::testing::TempDir() + "/without_layers";
  std::filesystem::create_directories(directory);
  ASSERT_OK(WriteFile(directory + "/config.json", LlamaConfigJson(config, DType::kFloat32)));
  ASSERT_OK(WriteFile(directory + "/model.safetensors",
                      SafetensorsBytes(RandomLlama(config, DType::kFloat32, 5))));
  const auto model = ModelSource::Open(directory, "float32");
  ASSERT_OK(model);
  std::vector<std::vector<int>> written;
  for (const ParallelConfig& shape : {ParallelConfig{}, ParallelConfig{.tp = 2, .cp = 2}}) {
    const auto replicas = Form(*model, {.config = shape});
    ASSERT_OK(replicas);
    const auto tokens = Write((*replicas)[0]->engine(), {3, 1, 4, 1, 5}, 20, {.chunk = 2});
    ASSERT_OK(tokens);
    written.push_back(TokensOf(*tokens));
  }
  EXPECT_EQ(written[0], written[1]);
}

// The two best tokens after each of `history`'s prefixes from `from` on, each fed whatever was
// best before: so that one near-tie does not change what is compared after it.
absl::StatusOr<std::vector<std::vector<TokenLogprob>>> TopTwo(Engine& engine,
                                                              const std::vector<int>& history,
                                                              size_t from, int chunk) {
  std::vector<std::vector<TokenLogprob>> steps;
  for (size_t begin = 0; begin < history.size();) {
    const size_t limit = begin < from ? from : begin + 1;
    const size_t end = std::min(begin + static_cast<size_t>(chunk), limit);
    SequenceSlice slice{.sequence_id = "s",
                        .token_ids = {history.begin() + begin, history.begin() + end},
                        .first_position = static_cast<uint32_t>(begin),
                        .top_n = end >= from ? 2u : 0u};
    MUSTER_ASSIGN_OR_RETURN(
        const ForwardResult result,
        testing::ForwardAndWait(engine, {.client_id = "test", .slices = {slice}}));
    if (end >= from) steps.push_back(result.outputs[0].top);
    begin = end;
  }
  engine.Free({.client_id = "test", .sequence_ids = {"s"}}, [](const absl::StatusOr<int>&) {});
  return steps;
}

TEST(BFloat16Test, EveryShapeChoosesTheSameTokensUpToNearTies) {
  const auto golden = ReadGolden("llama-gqa8");
  ASSERT_OK(golden);
  const auto model = ModelSource::Open(golden->directory, "bfloat16");
  ASSERT_OK(model);
  std::vector<int> history = golden->prompt;
  history.insert(history.end(), golden->tokens.begin(), golden->tokens.end());
  const auto one = Form(*model, {});
  ASSERT_OK(one);
  const auto expected = TopTwo((*one)[0]->engine(), history, golden->prompt.size(), kWholePrompt);
  ASSERT_OK(expected);

  const Way kWays[] = {
      {{.tp = 2, .cp = 1}, Fusion::kFused, true, kWholePrompt},
      {{.tp = 1, .cp = 2}, Fusion::kUnfused, true, 7},
      {{.tp = 4, .cp = 2}, Fusion::kFused, false, 64},
      {{.tp = 4, .cp = 1}, Fusion::kUnfused, false, 1},
      {{.tp = 1, .cp = 4, .replicas = 2}, Fusion::kFused, true, 1},
  };
  for (const Way& way : kWays) {
    SCOPED_TRACE(Name(way));
    const auto replicas = Form(*model, way);
    ASSERT_OK(replicas);
    for (const auto& replica : *replicas) {
      const auto actual = TopTwo(replica->engine(), history, golden->prompt.size(), way.chunk);
      ASSERT_OK(actual);
      ASSERT_EQ(actual->size(), expected->size());
      for (size_t step = 0; step < actual->size(); ++step) {
        const auto& best = (*expected)[step];
        if ((*actual)[step][0].token == best[0].token) continue;
        const float margin = best[0].logprob - best[1].logprob;
        std::printf("%s, step %zu: a near-tie, margin %.3f\n", Name(way).c_str(), step, margin);
        EXPECT_LT(margin, kNearTie);
      }
    }
  }
}

}  // namespace
}  // namespace muster
