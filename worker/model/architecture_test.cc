// How each architecture reads its config.json.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "worker/model/config.h"

namespace muster {
namespace {

// A config.json of 3 layers with further fields.
absl::StatusOr<ModelConfig> Parse(absl::string_view architecture, absl::string_view fields) {
  return ParseModelConfig(
      absl::StrCat(R"({"architectures": [")", architecture, R"("], "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 8, "vocab_size": 100,
        "max_position_embeddings": 512)",
                   fields.empty() ? "" : ", ", fields, "}"),
      "");
}

absl::StatusOr<ModelConfig> Mistral(absl::string_view fields) {
  return Parse("MistralForCausalLM", fields);
}
absl::StatusOr<ModelConfig> Qwen2(absl::string_view fields) {
  return Parse("Qwen2ForCausalLM", absl::StrCat(R"("num_key_value_heads": 2)", fields));
}
absl::StatusOr<ModelConfig> Qwen3(absl::string_view fields) {
  return Parse("Qwen3ForCausalLM", absl::StrCat(R"("num_key_value_heads": 2)", fields));
}

TEST(MistralConfigTest, HasItsWindowInEveryLayer) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Mistral(R"("sliding_window": 16)"));
  EXPECT_EQ(config.windows, (std::vector<int>{16, 16, 16}));
  EXPECT_FALSE(config.qkv_bias || config.o_bias || config.mlp_bias || config.qk_norm);
}

TEST(MistralConfigTest, HasNoWindowWhereItIsNullAndTheOriginalOneWhereItIsNotMentioned) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig none, Mistral(R"("sliding_window": null)"));
  EXPECT_TRUE(none.windows.empty());
  EXPECT_EQ(none.WindowOf(2), 0);
  ASSERT_OK_AND_ASSIGN(const ModelConfig original, Mistral(""));
  EXPECT_EQ(original.WindowOf(2), 4096);
}

TEST(MistralConfigTest, HasEightKvHeadsWhereTheyAreNotMentionedAndAsManyAsHeadsWhereNull) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig absent, Mistral(""));
  EXPECT_EQ(absent.kv_heads, 8);
  ASSERT_OK_AND_ASSIGN(const ModelConfig null, Mistral(R"("num_key_value_heads": null)"));
  EXPECT_EQ(null.kv_heads, null.heads);
}

TEST(MistralConfigTest, MayHaveAHeadDimOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig own, Mistral(R"("head_dim": 20)"));
  EXPECT_EQ(own.head_dim, 20);
  ASSERT_OK_AND_ASSIGN(const ModelConfig divided, Mistral(R"("head_dim": null)"));
  EXPECT_EQ(divided.head_dim, 8);
}

TEST(MistralConfigTest, RefusesLayersThatDiffer) {
  EXPECT_STATUS(Mistral(R"("sliding_window": 16, "layer_types":
                           ["sliding_attention", "full_attention", "sliding_attention"])")
                    .status(),
                absl::StatusCode::kInvalidArgument,
                "layer_types[1] is full_attention; MistralForCausalLM has its sliding_window in "
                "every layer");
}

TEST(Qwen2ConfigTest, HasBiasesOnQKAndVAlone) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Qwen2(""));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias || config.mlp_bias || config.qk_norm);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.kv_heads, 2);
}

TEST(Qwen2ConfigTest, HasAWindowOnlyWhereItIsSwitchedOnAndOnlyInTheLayersAbove) {
  const std::string window = R"(, "sliding_window": 16, "max_window_layers": 1)";
  ASSERT_OK_AND_ASSIGN(const ModelConfig off, Qwen2(window));
  EXPECT_TRUE(off.windows.empty());
  ASSERT_OK_AND_ASSIGN(const ModelConfig on, Qwen2(window + R"(, "use_sliding_window": true)"));
  EXPECT_EQ(on.windows, (std::vector<int>{0, 16, 16}));
  // 28 layers without one, by default.
  ASSERT_OK_AND_ASSIGN(const ModelConfig few, Qwen2(R"(, "use_sliding_window": true)"));
  EXPECT_TRUE(few.windows.empty());
}

TEST(Qwen2ConfigTest, LayerTypesDecideWhichLayersHaveTheWindow) {
  const std::string types =
      R"(, "sliding_window": 16, "layer_types":
          ["sliding_attention", "full_attention", "sliding_attention"])";
  ASSERT_OK_AND_ASSIGN(const ModelConfig on, Qwen2(types + R"(, "use_sliding_window": true)"));
  EXPECT_EQ(on.windows, (std::vector<int>{16, 0, 16}));
  EXPECT_STATUS(Qwen2(types).status(), absl::StatusCode::kInvalidArgument,
                "layer_types[0] is sliding_attention, and the model has no sliding window");
  EXPECT_STATUS(
      Qwen2(R"(, "layer_types": ["full_attention", "linear_attention", "full_attention"])")
          .status(),
      absl::StatusCode::kInvalidArgument,
      "layer_types[1] 'linear_attention' is not supported; supported are full_attention, "
      "sliding_attention");
  EXPECT_STATUS(Qwen2(R"(, "layer_types": [1, 2, 3])").status(), absl::StatusCode::kInvalidArgument,
                "layer_types must be a list of strings");
}

TEST(Qwen3ConfigTest, NormalisesHeadsWhoseSizeIsItsOwn) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Qwen3(R"(, "head_dim": 12)"));
  EXPECT_TRUE(config.qk_norm);
  EXPECT_FALSE(config.qkv_bias || config.o_bias);
  EXPECT_EQ(config.head_dim, 12);
  ASSERT_OK_AND_ASSIGN(const ModelConfig by_default, Qwen3(""));
  EXPECT_EQ(by_default.head_dim, 128);
}

TEST(Qwen3ConfigTest, AttentionBiasIsOnAllFourProjections) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Qwen3(R"(, "attention_bias": true)"));
  EXPECT_TRUE(config.qkv_bias && config.o_bias && !config.mlp_bias);
}

TEST(LlamaConfigTest, RefusesTheFieldsOfOthers) {
  EXPECT_STATUS(Parse("LlamaForCausalLM", R"("use_sliding_window": true)").status(),
                absl::StatusCode::kInvalidArgument, "use_sliding_window true is not supported");
  EXPECT_STATUS(
      Parse("Qwen2ForCausalLM", R"("num_key_value_heads": 2, "attention_bias": true)").status(),
      absl::StatusCode::kInvalidArgument, "attention_bias true is not supported");
}

}  // namespace
}  // namespace muster
