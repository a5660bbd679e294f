// The forward of dense decoders against transformers, on one rank and on several.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "tests/support/allocation_count.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/model_rank.h"
#include "tests/support/run_ranks.h"
#include "tests/support/status_matchers.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/golden.h"

namespace muster {
namespace {

using Logits = std::vector<std::vector<float>>;

constexpr const char* kGoldens[] = {"llama-mha12",  "llama-gqa8",    "llama-gqa6", "llama-mqa12",
                                    "llama-linear", "llama-dynamic", "llama-yarn", "llama-bias",
                                    "mistral",      "qwen2",         "qwen3"};

// Every logit of a step within 1e-3 of the largest.
void ExpectClose(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  float largest = 0;
  for (float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 1e-3f * largest) << "logit " << i;
  }
}

void ExpectClose(const Logits& actual, const Logits& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t step = 0; step < expected.size(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    ExpectClose(actual[step], expected[step]);
  }
}

// How a prompt is fed: in slices of `chunk` tokens, each step padded to `padded_rows`.
struct Feeding {
  int chunk = 1 << 20;
  int padded_rows = 0;
};

// The logits that each of the golden tokens is chosen from, this rank's part.
absl::StatusOr<Logits> Decode(ModelRank& rank, const Golden& golden, const Feeding& feeding) {
  Logits steps;
  std::vector<int> history = golden.prompt;
  for (size_t begin = 0; begin < history.size();) {
    const size_t end = std::min(begin + feeding.chunk, history.size());
    const TokenSlice slice = {.sequence = 1,
                              .tokens = {history.begin() + begin, history.begin() + end},
                              .position = static_cast<int>(begin)};
    MUSTER_RETURN_IF_ERROR(rank.Stage({slice}, feeding.padded_rows));
    MUSTER_ASSIGN_OR_RETURN(const Logits logits, rank.Run());
    if (end >= golden.prompt.size()) steps.push_back(logits.front());
    if (end == history.size() && steps.size() < golden.tokens.size()) {
      history.push_back(golden.tokens[steps.size() - 1]);
    }
    begin = end;
  }
  MUSTER_RETURN_IF_ERROR(rank.FreeSequence(1));
  return steps;
}

class DenseDecoderTest : public ::testing::Test {
 protected:
  std::unique_ptr<ModelRank> Create(const std::string& directory, const std::string& dtype,
                                    int threads = 2) {
    auto rank = ModelRank::Create({.directory = directory, .dtype = dtype, .threads = threads},
                                  rendezvous_);
    EXPECT_OK(rank);
    return *std::move(rank);
  }

  testing::LocalRendezvousBoard board_;
  testing::LocalRendezvous rendezvous_{board_, Epoch(1)};
};

TEST_F(DenseDecoderTest, EveryStepHasTheLogitsOfTransformers) {
  for (const char* name : kGoldens) {
    SCOPED_TRACE(name);
    const auto golden = ReadGolden(name);
    ASSERT_OK(golden);
    const auto rank = Create(golden->directory, "float32");
    // 128 rows run through oneDNN; 7 and 70 through the kernel of few rows.
    for (const Feeding& feeding :
         {Feeding{}, Feeding{.padded_rows = 128}, Feeding{.chunk = 7}, Feeding{.chunk = 64}}) {
      const auto logits = Decode(*rank, *golden, feeding);
      ASSERT_OK(logits);
      ExpectClose(*logits, golden->logits);
    }
  }
}

TEST_F(DenseDecoderTest, EveryTokenOfThePromptHasTheLogitsOfTransformers) {
  const auto golden = ReadGolden("llama-gqa6");
  ASSERT_OK(golden);
  const auto rank = Create(golden->directory, "float32");
  for (size_t i = 0; i < golden->prompt.size(); ++i) {
    const auto logits = rank->Forward({{0, {golden->prompt[i]}, static_cast<int>(i)}});
    ASSERT_OK(logits);
    ExpectClose(logits->front(), golden->prompt_logits[i]);
  }
}

// How far the second best logit lies below that of `token`; negative when it is not the best.
float MarginOf(const std::vector<float>& logits, int token) {
  float best_other = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (static_cast<int>(i) != token) best_other = std::max(best_other, logits[i]);
  }
  return logits[token] - best_other;
}

float FarthestApart(const Logits& a, const Logits& b) {
  float apart = 0;
  for (size_t step = 0; step < a.size(); ++step) {
    for (size_t i = 0; i < a[step].size(); ++i) {
      apart = std::max(apart, std::abs(a[step][i] - b[step][i]));
    }
  }
  return apart;
}

// Weights and KV in bfloat16, but activations in float32: nearer to float32 than transformers,
// which rounds every activation.
TEST_F(DenseDecoderTest, BFloat16ChoosesTheSameTokensUpToNearTies) {
  constexpr float kNearTie = 0.25f;
  const auto golden = ReadGolden("llama-gqa8");
  ASSERT_OK(golden);
  const auto rank = Create(golden->directory, "bfloat16");
  const auto logits = Decode(*rank, *golden, {});
  ASSERT_OK(logits);
  const float ours = FarthestApart(*logits, golden->logits);
  const float theirs = FarthestApart(golden->logits_bf16, golden->logits);
  std::printf("bfloat16: logits at most %.3f from float32; transformers %.3f\n", ours, theirs);
  EXPECT_LE(ours, theirs);
  for (size_t step = 0; step < golden->tokens.size(); ++step) {
    const int token = golden->tokens[step];
    if (MarginOf((*logits)[step], token) > 0) continue;
    const float margin = MarginOf(golden->logits[step], token);
    std::printf("step %zu: another token, the margin was %.3f\n", step, margin);
    EXPECT_LT(margin, kNearTie);
  }
}

TEST_F(DenseDecoderTest, SequencesOfOneStepDoNotMeet) {
  const auto golden = ReadGolden("llama-mqa12");
  ASSERT_OK(golden);
  const auto rank = Create(golden->directory, "float32");
  const std::vector<int> other(golden->prompt.rbegin(), golden->prompt.rend());
  const auto alone = rank->Forward({{0, golden->prompt, 0}});
  ASSERT_OK(alone);
  const auto together = rank->Forward({{2, other, 0}, {1, golden->prompt, 0}});
  ASSERT_OK(together);
  EXPECT_EQ((*together)[1], (*alone)[0]);
  EXPECT_NE((*together)[0], (*alone)[0]);
  // And a decode token beside a prompt.
  const auto step = rank->Forward({{1, {golden->tokens[0]}, 70}, {3, other, 0}});
  ASSERT_OK(step);
  ExpectClose((*step)[0], golden->logits[1]);
  EXPECT_EQ((*step)[1], (*together)[0]);
}

TEST_F(DenseDecoderTest, RefusesStepsBeyondItsBuffers) {
  const auto rank = Create("tests/testdata/goldens/llama-mqa12", "float32");
  Model& model = rank->model();
  EXPECT_STATUS(model.Forward(rank->stream(), model.Whole(513, 1)),
                absl::StatusCode::kInvalidArgument,
                "a pass of 513 rows and 1 outputs through layers 0 to 2 from tokens, keeping what "
                "enters layer -1; the most are 512 rows, 32 outputs and 2 layers");
  EXPECT_FALSE(model.Forward(rank->stream(), model.Whole(0, 0)).ok());
  EXPECT_FALSE(model.Forward(rank->stream(), model.Whole(1, 33)).ok());
}

TEST_F(DenseDecoderTest, RefusesLayersThatItDoesNotHave) {
  const auto rank = Create("tests/testdata/goldens/llama-mqa12", "float32");
  Model& model = rank->model();
  const auto refused = [&](const ForwardPass& pass) {
    return absl::IsInvalidArgument(model.Forward(rank->stream(), pass));
  };
  EXPECT_TRUE(refused({.rows = 1, .layers = {0, 3}}));
  EXPECT_TRUE(refused({.rows = 1, .layers = {2, 1}, .from_hidden = true}));
  EXPECT_TRUE(refused({.rows = 1, .layers = {1, 2}}));                // from tokens
  EXPECT_TRUE(refused({.rows = 1, .outputs = 1, .layers = {0, 1}}));  // logits of no last layer
  EXPECT_TRUE(refused({.rows = 1, .layers = {0, 1}, .hidden_of = 2}));
}

TEST_F(DenseDecoderTest, LayersInTwoPassesGiveTheBitsOfOne) {
  const auto golden = ReadGolden("llama-gqa8");
  ASSERT_OK(golden);
  const auto rank = Create(golden->directory, "float32");
  const auto whole = rank->Forward({{0, golden->prompt, 0}});
  ASSERT_OK(whole);
  Model& model = rank->model();
  const int rows = static_cast<int>(golden->prompt.size());
  const size_t bytes = sizeof(float) * static_cast<size_t>(rows) * model.hidden();
  for (int cut = 0; cut <= model.layers(); ++cut) {
    SCOPED_TRACE(cut);
    ASSERT_OK(rank->Stage({{1, golden->prompt, 0}}, 1));
    ASSERT_OK(model.Forward(rank->stream(), {.rows = rows, .layers = {0, cut}, .hidden_of = cut}));
    ASSERT_OK(rank->stream().Synchronize());
    std::memcpy(model.buffers().hidden_in, model.buffers().hidden_out, bytes);
    ASSERT_OK(model.Forward(
        rank->stream(),
        {.rows = rows, .outputs = 1, .layers = {cut, model.layers()}, .from_hidden = true}));
    ASSERT_OK(rank->stream().Synchronize());
    const float* logits = model.buffers().logits;
    EXPECT_EQ(std::vector<float>(logits, logits + (*whole)[0].size()), (*whole)[0]);
  }
}

// Embedding, norm and output alone: what a step costs without its layers.
TEST_F(DenseDecoderTest, WithoutLayersTheOutputFollowsTheEmbedding) {
  const ModelConfig config = {.hidden = 16,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_dim = 8,
                              .ffn = 8,
                              .vocabulary = 11,
                              .max_positions = 64,
                              .rms_norm_eps = 1e-5,
                              .tied_embeddings = true};
  const std::string directory = ::testing::TempDir() + "/without_layers";
  std::filesystem::create_directories(directory);
  const NamedTensors tensors = RandomLlama(config, DType::kFloat32, 3);
  ASSERT_OK(WriteFile(directory + "/config.json", LlamaConfigJson(config, DType::kFloat32)));
  ASSERT_OK(WriteFile(directory + "/model.safetensors", SafetensorsBytes(tensors)));
  const auto rank = Create(directory, "float32");
  const auto logits = rank->Forward({{0, {4, 7}, 0}});
  ASSERT_OK(logits);
  const std::vector<float>& table = tensors.at("model.embed_tokens.weight").values;
  const std::vector<float>& norm = tensors.at("model.norm.weight").values;
  double squares = 0;
  for (int i = 0; i < 16; ++i) squares += double{table[7 * 16 + i]} * table[7 * 16 + i];
  std::vector<float> expected(11);
  for (int token = 0; token < 11; ++token) {
    for (int i = 0; i < 16; ++i) {
      const double x = table[7 * 16 + i] / std::sqrt(squares / 16 + 1e-5) * norm[i];
      expected[token] += static_cast<float>(x * table[token * 16 + i]);
    }
  }
  ExpectClose(logits->front(), expected);
}

TEST_F(DenseDecoderTest, ReplayAllocatesNothingAndGivesTheBitsOfTheEagerStep) {
  const auto golden = ReadGolden("llama-gqa8");
  ASSERT_OK(golden);
  const auto rank = Create(golden->directory, "bfloat16");
  ASSERT_OK(rank->Forward({{0, golden->prompt, 0}, {1, golden->prompt, 0}}));
  const auto eager = rank->Forward({{0, {5}, 70}});
  ASSERT_OK(eager);

  ASSERT_OK(rank->Stage({{1, {5}, 70}}, 1));
  const auto graph = rank->device().Capture(rank->stream(), [&] {
    return rank->model().Forward(rank->stream(), rank->model().Whole(1, 1));
  });
  ASSERT_OK(graph);
  const uint64_t before = testing::AllocationsOfThisProcess();
  const absl::Status status = (*graph)->Launch(rank->stream());
  const uint64_t allocated = testing::AllocationsOfThisProcess() - before;
  EXPECT_OK(status);
  EXPECT_EQ(allocated, 0u);
  const float* logits = rank->model().buffers().logits;
  EXPECT_EQ(std::vector<float>(logits, logits + eager->front().size()), eager->front());
}

// Args: "golden tp cp fused|unfused".
const testing::RankCase kDecodes("decodes", [](testing::RankContext& context) -> absl::Status {
  const std::vector<std::string> args = absl::StrSplit(context.args, ' ');
  MUSTER_ASSIGN_OR_RETURN(const Golden golden, ReadGolden(args[0]));
  ModelRank::Options options = {
      .directory = golden.directory, .dtype = "float32", .rank = context.rank};
  if (!absl::SimpleAtoi(args[1], &options.config.tp) ||
      !absl::SimpleAtoi(args[2], &options.config.cp)) {
    return absl::InvalidArgumentError(context.args);
  }
  options.fusion = args[3] == "fused" ? Fusion::kFused : Fusion::kUnfused;
  MUSTER_ASSIGN_OR_RETURN(const auto rank, ModelRank::Create(options, context.rendezvous));
  MUSTER_ASSIGN_OR_RETURN(const Logits logits, Decode(*rank, golden, {.chunk = 33}));
  for (const std::vector<float>& step : logits) {
    context.output.append(reinterpret_cast<const char*>(step.data()), step.size() * sizeof(float));
  }
  return absl::OkStatus();
});

// The ranks' parts of every step, side by side.
Logits Assembled(const std::vector<testing::RankResult>& results, size_t steps) {
  Logits logits(steps);
  for (const testing::RankResult& result : results) {
    const size_t part = result.output.size() / sizeof(float) / steps;
    for (size_t step = 0; step < steps; ++step) {
      std::vector<float> values(part);
      std::memcpy(values.data(), result.output.data() + step * part * sizeof(float),
                  part * sizeof(float));
      logits[step].insert(logits[step].end(), values.begin(), values.end());
    }
  }
  return logits;
}

TEST(DenseDecoderRanksTest, EveryTopologyHasTheLogitsOfTransformers) {
  struct Case {
    const char* golden;
    int tp;
    int cp;
    const char* fusion;
  };
  const Case cases[] = {
      {"llama-mha12", 2, 2, "fused"}, {"llama-mha12", 2, 2, "unfused"},
      {"llama-mha12", 3, 2, "fused"}, {"llama-gqa8", 1, 4, "fused"},
      {"llama-gqa6", 3, 1, "fused"},  {"llama-gqa6", 6, 1, "unfused"},
      {"llama-mqa12", 4, 2, "fused"}, {"llama-bias", 3, 2, "fused"},
      {"mistral", 2, 3, "fused"},     {"mistral", 1, 4, "unfused"},
      {"qwen2", 3, 2, "unfused"},     {"qwen3", 4, 2, "fused"},
  };
  for (const Case& c : cases) {
    const std::string args = absl::StrCat(c.golden, " ", c.tp, " ", c.cp, " ", c.fusion);
    SCOPED_TRACE(args);
    const auto golden = ReadGolden(c.golden);
    ASSERT_OK(golden);
    const auto results =
        testing::RunRanks(c.tp * c.cp, "decodes", {.args = args, .timeout = absl::Seconds(120)});
    ASSERT_OK(testing::AllOk(results));
    ExpectClose(Assembled(results, golden->tokens.size()), golden->logits);
  }
}

}  // namespace
}  // namespace muster
