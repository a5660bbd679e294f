#include "worker/model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/rope_table.h"

namespace muster {
namespace {

// The older form, as of SmolLM2-135M.
constexpr char kOlder[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "eos_token_id": 2,
  "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536, "mlp_bias": false,
  "max_position_embeddings": 8192, "num_attention_heads": 9, "num_hidden_layers": 30,
  "num_key_value_heads": 3, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 100000.0,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 49152})";

// The newer, as of Llama 3.1 8B.
constexpr char kNewer[] = R"({
  "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "eos_token_id": [128001, 128009],
  "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
  "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "vocab_size": 128256,
  "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000, "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})";

// kOlder with one text replaced by another.
std::string Altered(absl::string_view from, absl::string_view to) {
  const std::string altered = absl::StrReplaceAll(kOlder, {{from, to}});
  EXPECT_NE(altered, kOlder) << from;
  return altered;
}

// kOlder with further fields.
std::string With(absl::string_view fields) {
  return Altered("{\n", absl::StrCat("{", fields, ","));
}

TEST(ModelConfigTest, ReadsTheOlderForm) {
  const auto config = ParseModelConfig(kOlder, "");
  ASSERT_OK(config);
  EXPECT_EQ(*config, (ModelConfig{.architecture = "LlamaForCausalLM",
                                  .layers = 30,
                                  .hidden = 576,
                                  .heads = 9,
                                  .kv_heads = 3,
                                  .head_dim = 64,
                                  .ffn = 1536,
                                  .vocabulary = 49152,
                                  .max_positions = 8192,
                                  .rms_norm_eps = 1e-5,
                                  .rope = {.theta = 100000},
                                  .tied_embeddings = true,
                                  .dtype = DType::kBFloat16,
                                  .eos_token_ids = {2},
                                  .json = kOlder}));
}

TEST(ModelConfigTest, ReadsTheNewerForm) {
  const auto config = ParseModelConfig(kNewer, "");
  ASSERT_OK(config);
  EXPECT_EQ(config->rope, (RopeConfig{.type = RopeConfig::Type::kLlama3,
                                      .theta = 500000,
                                      .factor = 8,
                                      .original_max_positions = 8192,
                                      .low_freq_factor = 1,
                                      .high_freq_factor = 4}));
  EXPECT_EQ(config->dtype, DType::kBFloat16);
  EXPECT_EQ(config->eos_token_ids, (std::vector<int>{128001, 128009}));
  EXPECT_FALSE(config->tied_embeddings);
}

TEST(ModelConfigTest, BothFormsOfRopeScalingMeanTheSame) {
  const std::string parameters =
      R"("low_freq_factor": 1, "high_freq_factor": 4, "factor": 32,
         "original_max_position_embeddings": 8192)";
  const auto older = ParseModelConfig(
      Altered(R"("rope_scaling": null)",
              absl::StrCat(R"("rope_scaling": {"rope_type": "llama3",)", parameters, "}")),
      "");
  const auto newer = ParseModelConfig(
      Altered(R"("rope_scaling": null, "rope_theta": 100000.0)",
              absl::StrCat(R"("rope_parameters": {"rope_theta": 100000.0, "rope_type": "llama3",)",
                           parameters, "}")),
      "");
  ASSERT_OK(older);
  ASSERT_OK(newer);
  EXPECT_EQ(older->rope, newer->rope);
  EXPECT_EQ(older->rope.factor, 32);
}

TEST(ModelConfigTest, DefaultsAreThoseOfHuggingFace) {
  std::string text = absl::StrReplaceAll(kOlder, {{R"("num_key_value_heads": 3,)", ""},
                                                  {R"("rope_theta": 100000.0,)", ""},
                                                  {R"("tie_word_embeddings": true,)", ""},
                                                  {R"("torch_dtype": "bfloat16",)", ""},
                                                  {R"("rms_norm_eps": 1e-05,)", ""},
                                                  {R"("hidden_act": "silu",)", ""},
                                                  {R"("eos_token_id": 2,)", ""}});
  const auto config = ParseModelConfig(text, "");
  ASSERT_OK(config);
  EXPECT_EQ(config->kv_heads, 9);
  EXPECT_EQ(config->rope, RopeConfig{});
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->dtype, std::nullopt);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_TRUE(config->eos_token_ids.empty());
}

TEST(ModelConfigTest, HeadDimNeedNotBeHiddenOverHeads) {
  const auto config = ParseModelConfig(With(R"("head_dim": 80)"), "");
  ASSERT_OK(config);
  EXPECT_EQ(config->head_dim, 80);
}

TEST(ModelConfigTest, EndTokensOfTheGenerationConfigCount) {
  const auto several = ParseModelConfig(kOlder, R"({"eos_token_id": [2, 7, 49152]})");
  ASSERT_OK(several);
  EXPECT_EQ(several->eos_token_ids, (std::vector<int>{2, 7}));
  const auto none = ParseModelConfig(kOlder, "{}");
  ASSERT_OK(none);
  EXPECT_EQ(none->eos_token_ids, std::vector<int>{2});
}

// kOlder with its rope_scaling.
absl::StatusOr<ModelConfig> Scaled(absl::string_view rope_scaling) {
  return ParseModelConfig(
      Altered(R"("rope_scaling": null)", absl::StrCat(R"("rope_scaling": )", rope_scaling)), "");
}

TEST(ModelConfigTest, LinearAndDynamicRopeAreReadByFactor) {
  const auto linear = Scaled(R"({"type": "linear", "factor": 2.5})");
  ASSERT_OK(linear);
  EXPECT_EQ(linear->rope,
            (RopeConfig{.type = RopeConfig::Type::kLinear, .theta = 100000, .factor = 2.5}));
  EXPECT_EQ(linear->max_positions, 8192);
  // The original context is what the model was trained for.
  const auto dynamic = Scaled(R"({"type": "dynamic", "factor": 2.5})");
  ASSERT_OK(dynamic);
  EXPECT_EQ(dynamic->rope, (RopeConfig{.type = RopeConfig::Type::kDynamic,
                                       .theta = 100000,
                                       .factor = 2.5,
                                       .original_max_positions = 8192}));
  EXPECT_EQ(dynamic->max_positions, 20480);
}

TEST(ModelConfigTest, YarnTakesThePapersNumbersWhereItIsNotTold) {
  const auto config = Scaled(
      R"({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
          "finetuned": true})");
  ASSERT_OK(config);
  EXPECT_EQ(config->rope.type, RopeConfig::Type::kYarn);
  EXPECT_EQ(config->rope.beta_fast, 32);
  EXPECT_EQ(config->rope.beta_slow, 1);
  EXPECT_TRUE(config->rope.truncate);
  EXPECT_DOUBLE_EQ(config->rope.attention_factor, 0.1 * std::log(4.0) + 1);
  EXPECT_EQ(config->max_positions, 16384);
}

TEST(ModelConfigTest, YarnTakesTheNumbersOfItsFields) {
  const auto config = Scaled(
      R"({"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 2048,
          "beta_fast": 16, "beta_slow": 2, "truncate": false, "mscale": 0.707,
          "mscale_all_dim": 1.5})");
  ASSERT_OK(config);
  EXPECT_EQ(config->rope.factor, 4);  // 8192 / 2048
  EXPECT_EQ(config->rope.beta_fast, 16);
  EXPECT_EQ(config->rope.beta_slow, 2);
  EXPECT_FALSE(config->rope.truncate);
  EXPECT_DOUBLE_EQ(config->rope.attention_factor,
                   (0.0707 * std::log(4.0) + 1) / (0.15 * std::log(4.0) + 1));
  const auto told = Scaled(R"({"rope_type": "yarn", "factor": 2, "attention_factor": 1.25})");
  ASSERT_OK(told);
  EXPECT_EQ(told->rope.attention_factor, 1.25);
  EXPECT_EQ(told->max_positions, 16384);  // max_position_embeddings is the original then
}

// What _compute_yarn_parameters of transformers 5.17 gives for the same fields.
TEST(ModelConfigTest, YarnHasTheFrequenciesOfTransformers) {
  const struct {
    const char* fields;
    std::vector<double> frequencies;
    double attention_factor;
  } kCases[] = {
      {R"("rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768)",
       {1.0, 0.177828, 0.0316228, 0.00421756, 0.0005, 4.4457e-05, 7.90569e-06, 1.40585e-06},
       1.138629436111989},
      {R"("rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 4096,
          "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 1.0)",
       {1.0, 0.316228, 0.1, 0.0239147, 0.005125, 0.000849862, 2.5e-05, 7.90569e-06},
       0.9210423553163399},
      {R"("rope_theta": 150000.0, "factor": 32.0, "original_max_position_embeddings": 4096,
          "truncate": false)",
       {1.0, 0.225418, 0.0508133, 0.00679496, 0.000456484, 1.81883e-05, 4.09998e-06, 9.24209e-07},
       1.3465735902799727},
  };
  for (const auto& it : kCases) {
    const auto config = Scaled(absl::StrCat(R"({"rope_type": "yarn", )", it.fields, "}"));
    ASSERT_OK(config);
    EXPECT_DOUBLE_EQ(config->rope.attention_factor, it.attention_factor);
    const std::vector<double> frequencies = RopeFrequencies(config->rope, 16);
    for (size_t i = 0; i < it.frequencies.size(); ++i) {
      EXPECT_NEAR(frequencies[i] / it.frequencies[i], 1, 2e-5) << it.fields << " pair " << i;
    }
  }
}

struct BadConfig {
  std::string text;
  std::string message;
};

void ExpectRefused(const std::vector<BadConfig>& cases) {
  for (const BadConfig& bad : cases) {
    const absl::Status status = ParseModelConfig(bad.text, "").status();
    EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument, bad.message);
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kModelUnusable) << status;
  }
}

TEST(ModelConfigTest, RefusesByFileFieldAndValue) {
  ExpectRefused({
      {"", "config.json: not valid JSON"},
      {"[]", "config.json: must be an object, is a list of 0"},
      {"{", "config.json: not valid JSON"},
      {std::string(kOlder) + "x", "config.json: not valid JSON"},
      {With(R"("vocab_size": 1)"), R"(config.json: "vocab_size" stands twice)"},
      {"{}", "config.json: architectures must be a list of one name"},
      {Altered("LlamaForCausalLM", "GPT2LMHeadModel"),
       R"(architecture "GPT2LMHeadModel" is not supported; supported: LlamaForCausalLM, )"
       "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"},
      {Altered(R"("hidden_size": 576,)", ""), "config.json: hidden_size is missing"},
      {Altered("576", "576.5"), "hidden_size must be a whole number from 1 to 4194304, is 576.5"},
      {Altered("576", "\"576\""), "hidden_size must be a whole number"},
      {Altered("576", "0"), "hidden_size must be a whole number"},
      {Altered("576", "-576"), "is -576"},
      {Altered("576", "18446744073709551615"), "is 18446744073709551615"},
      {Altered("576", "99999999999999999999999999"), "hidden_size must be a whole number"},
      {Altered("49152", "2147483648"), "vocab_size must be a whole number"},
      {Altered("\"num_attention_heads\": 9", "\"num_attention_heads\": 7"),
       "num_key_value_heads 3 does not divide num_attention_heads 7"},
      {Altered("576", "577"),
       "there is no head_dim, and num_attention_heads 9 does not divide hidden_size 577"},
      {With(R"("head_dim": 63)"), "head_dim must be even and at most 256, is 63"},
      {With(R"("head_dim": 258)"), "head_dim must be a whole number from 1 to 256, is 258"},
      {Altered(R"("mlp_bias": false)", R"("mlp_bias": 0)"), "mlp_bias must be true or false, is 0"},
      {Altered("silu", "gelu"), "hidden_act 'gelu' is not supported; supported is silu"},
      {Altered("\"bfloat16\"", "\"int8\""),
       "torch_dtype must be one of float32, bfloat16, float16, is 'int8'"},
      {Altered("100000.0", "0"), "rope_theta must be a number from 1 to 1e+12, is 0"},
      {Altered("1e-05", "1e999"), "config.json: not valid JSON"},
      {Altered("1e-05", "-1"), "rms_norm_eps must be a number"},
      {Altered(R"("eos_token_id": 2)", R"("eos_token_id": "</s>")"),
       "eos_token_id must be a whole"},
      {With(R"("quantization_config": {})"), "quantization_config is not supported"},
  });
}

TEST(ModelConfigTest, RefusesRopeThatItDoesNotUnderstand) {
  ExpectRefused({
      {Altered(R"("rope_scaling": null)", R"("rope_scaling": {"type": "longrope"})"),
       "config.json: rope_scaling: rope_type 'longrope' is not supported; supported are default, "
       "linear, dynamic, llama3, yarn"},
      {Altered(R"("rope_scaling": null)", R"("rope_scaling": {"type": "linear", "factor": 0.5})"),
       "config.json: rope_scaling: factor must be a number from 1 to 1e+12, is 0.5"},
      {Altered(R"("rope_scaling": null)",
               R"("rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 32})"),
       "config.json: rope_scaling: beta_fast 32 is not supported: it may change what the model "
       "computes"},
      {Altered(R"("rope_scaling": null)", R"("rope_parameters": {"full_attention": {"a": 1}})"),
       "config.json: rope_parameters: full_attention an object of 1 is not supported"},
      {Altered(R"("rope_scaling": null)",
               R"("rope_scaling": {"type": "dynamic", "factor": 2,
                                   "original_max_position_embeddings": 4096})"),
       "original_max_position_embeddings 4096 must be max_position_embeddings where rope_type is "
       "dynamic, which is 8192"},
      {Altered(R"("rope_scaling": null)",
               R"("rope_scaling": {"type": "yarn", "beta_fast": 1, "beta_slow": 2})"),
       "rope_scaling: beta_fast 1 must not be below beta_slow 2"},
      {Altered(R"("rope_scaling": null)", R"("rope_scaling": {"rope_type": "llama3"})"),
       "rope_scaling: factor is missing"},
      {Altered(R"("rope_scaling": null)", R"("rope_scaling": [])"),
       "config.json: rope_scaling: must be an object, is a list of 0"},
  });
}

TEST(ModelConfigTest, RefusesFieldsThatMayChangeTheLogits) {
  ExpectRefused({
      {With(R"("partial_rotary_factor": 0.5)"), "partial_rotary_factor 0.5 is not supported"},
      {With(R"("pretraining_tp": 2)"), "pretraining_tp 2 is not supported"},
      {With(R"("attn_logit_softcapping": 50.0)"), "attn_logit_softcapping 50.0 is not supported"},
      {With(R"("logit_scale": 0.0625)"), "logit_scale 0.0625 is not supported"},
      {With(R"("is_causal": false)"), "is_causal false is not supported"},
      {With(R"("num_local_experts": 8)"), "num_local_experts 8 is not supported"},
      {With(R"("sliding_window": 4096)"), "config.json: sliding_window 4096 is not supported"},
      {With(R"("no_rope_layers": [1, 0])"), "no_rope_layers a list of 2 is not supported"},
      {With(R"("flux_capacitor": "on")"),
       "config.json: flux_capacitor \"on\" is not supported: it may change what the model "
       "computes. Remove the field if it does not"},
      {With(R"("layer_types": ["full_attention"])"),
       "layer_types has 1 entries, num_hidden_layers is 30"},
  });
}

TEST(ModelConfigTest, SkipsWhatCannotChangeTheLogits) {
  const auto plain = ParseModelConfig(kOlder, "");
  ASSERT_OK(plain);
  auto config = ParseModelConfig(
      With(R"("model_type": "llama", "transformers_version": "4.40.1", "use_cache": true,
              "_name_or_path": "x", "initializer_range": 0.041, "pretraining_tp": 1,
              "bos_token_id": 1, "pad_token_id": 0, "attention_dropout": 0.1, "auto_map": {"a": 1},
              "unsloth_fixed": true, "transformers.js_config": {"dtype": "q4"},
              "is_llama_config": true, "rope_interleaved": false, "temperature": 0.7,
              "final_logit_softcapping": null, "logits_scaling": 1.0, "num_experts": 0,
              "pruned_heads": {}, "no_rope_layers": [], "sliding_window": null)"),
      "");
  ASSERT_OK(config);
  config->json = plain->json;
  EXPECT_EQ(*config, *plain);
}

TEST(ModelConfigTest, LlamaMayHaveBiases) {
  const auto attention =
      ParseModelConfig(Altered(R"("attention_bias": false)", R"("attention_bias": true)"), "");
  ASSERT_OK(attention);
  EXPECT_TRUE(attention->qkv_bias && attention->o_bias && !attention->mlp_bias);
  const auto mlp = ParseModelConfig(Altered(R"("mlp_bias": false)", R"("mlp_bias": true)"), "");
  ASSERT_OK(mlp);
  EXPECT_TRUE(!mlp->qkv_bias && !mlp->o_bias && mlp->mlp_bias);
}

TEST(ModelConfigTest, AModelMayHaveNoLayers) {
  const auto config =
      ParseModelConfig(Altered(R"("num_hidden_layers": 30)", R"("num_hidden_layers": 0)"), "");
  ASSERT_OK(config);
  EXPECT_EQ(config->layers, 0);
}

TEST(ModelConfigTest, HostileNestingIsRefusedWithoutGrowing) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_STATUS(ParseModelConfig(deep, "").status(), absl::StatusCode::kInvalidArgument,
                "config.json: ");
  deep += "1" + std::string(100'000, '}');
  EXPECT_STATUS(ParseModelConfig(deep, "").status(), absl::StatusCode::kInvalidArgument,
                "nested more than 32 levels deep");
}

TEST(ModelConfigTest, NamesTheDirectoryOrTheFileThatIsMissing) {
  const std::string directory = ::testing::TempDir() + "/config_test";
  std::filesystem::remove_all(directory);
  const absl::Status missing = ReadModelConfig(directory).status();
  EXPECT_STATUS(missing, absl::StatusCode::kNotFound,
                absl::StrCat("model directory '", directory, "' does not exist"));
  EXPECT_EQ(DetailOf(missing).reason, ErrorReason::kModelUnusable);

  std::filesystem::create_directories(directory);
  EXPECT_STATUS(ReadModelConfig(directory).status(), absl::StatusCode::kNotFound, "no config.json");
  EXPECT_STATUS(ReadModelConfig("/dev/null").status(), absl::StatusCode::kNotFound,
                "model directory '/dev/null' is not a directory");

  ASSERT_OK(WriteFile(directory + "/config.json", kOlder));
  const auto config = ReadModelConfig(directory + "/");
  ASSERT_OK(config);
  EXPECT_EQ(config->name, "config_test");
  ASSERT_OK(WriteFile(directory + "/generation_config.json", "{"));
  EXPECT_STATUS(ReadModelConfig(directory).status(), absl::StatusCode::kInvalidArgument,
                "generation_config.json: not valid JSON");
}

}  // namespace
}  // namespace muster
