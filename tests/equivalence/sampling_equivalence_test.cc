// However a vocabulary is cut over ranks, the token is the one that SampleFromLogits draws from all
// logits: drawn where they lie, from candidates, or from all logits where candidates are too few.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/support/local_replica.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/batch.h"
#include "worker/model/checkpoint_writer.h"

namespace muster {
namespace {

using testing::ForwardAndWait;
using testing::LocalReplica;

constexpr int kVocabulary = 1501;  // no multiple of anything, and more than the candidates

// A model without layers, whose logits are small or `scale` times as large.
absl::StatusOr<ModelSource> MakeModel(float scale) {
  const ModelConfig config = {.hidden = 24,
                              .heads = 4,
                              .kv_heads = 4,
                              .head_dim = 6,
                              .ffn = 8,
                              .vocabulary = kVocabulary,
                              .max_positions = 128,
                              .rms_norm_eps = 1e-5};
  const std::string directory = absl::StrCat(::testing::TempDir(), "/sampled_", scale);
  std::filesystem::create_directories(directory);
  NamedTensors tensors = RandomLlama(config, DType::kFloat32, 5);
  for (float& weight : tensors["lm_head.weight"].values) weight *= scale;
  MUSTER_RETURN_IF_ERROR(
      WriteFile(directory + "/config.json", LlamaConfigJson(config, DType::kFloat32)));
  MUSTER_RETURN_IF_ERROR(WriteFile(directory + "/model.safetensors", SafetensorsBytes(tensors)));
  return ModelSource::Open(directory, "float32");
}

// Every way to sample: some with many tokens kept, some with few.
std::vector<SamplingOptions> EverySampling() {
  return {
      {},
      {.temperature = 1, .seed = 1},
      {.temperature = 0.3f, .seed = uint64_t{1} << 60},
      {.temperature = 1e-8f, .seed = 2},
      {.temperature = 1, .top_k = 40, .seed = 3},
      {.temperature = 1, .top_k = 256, .top_p = 0.5f, .seed = 4},
      {.temperature = 1, .top_k = 257, .seed = 5},
      {.temperature = 1, .top_k = 700, .top_p = 0.9f, .seed = 6},
      {.temperature = 0.1f, .top_k = 700, .top_p = 0.6f, .seed = 7},
      {.temperature = 1, .top_p = 0.9f, .seed = 8},
      {.temperature = 0.1f, .top_p = 0.9f, .seed = 9},
      {.temperature = 1, .top_p = 1e-6f, .seed = 10},
      {.temperature = 1, .top_k = 4000, .seed = 11},
  };
}

// One sequence of each sampling.
ForwardBatch BatchAt(uint32_t position) {
  ForwardBatch batch{.client_id = "test"};
  for (const SamplingOptions& sampling : EverySampling()) {
    const auto index = static_cast<uint32_t>(batch.slices.size());
    batch.slices.push_back({.sequence_id = absl::StrCat("s", index),
                            .token_ids = {17 * position + index},
                            .first_position = position,
                            .sample = true,
                            .top_n = index % 3 * 2,
                            .sampling = sampling});
  }
  return batch;
}

// What the replica samples at each of some positions. Where `whole`, all logits are asked for too,
// and the token is held against what they give.
absl::StatusOr<std::vector<SliceOutput>> Sampled(Engine& engine, bool whole) {
  std::vector<SliceOutput> all;
  std::vector<Candidate> scratch(kVocabulary);
  for (uint32_t position = 0; position < 20; ++position) {
    ForwardBatch batch = BatchAt(position);
    for (SequenceSlice& slice : batch.slices) slice.return_logits = whole;
    MUSTER_ASSIGN_OR_RETURN(const ForwardResult result, ForwardAndWait(engine, batch));
    for (size_t i = 0; i < batch.slices.size(); ++i) {
      SliceOutput output = result.outputs[i];
      MUSTER_RETURN_IF_ERROR(output.error);
      if (whole) {
        const SamplingParams params = ParamsOf(batch.slices[i], position + 1);
        EXPECT_EQ(
            output.sampled->token,
            SampleFromLogits(params, output.logits.data(), kVocabulary, scratch.data()).token);
        output.logits.clear();
      }
      all.push_back(output);
    }
  }
  return all;
}

void ExpectSame(const SliceOutput& actual, const SliceOutput& expected) {
  EXPECT_EQ(actual.sampled->token, expected.sampled->token);
  EXPECT_NEAR(actual.sampled->logprob, expected.sampled->logprob, 1e-4);
  ASSERT_EQ(actual.top.size(), expected.top.size());
  for (size_t i = 0; i < actual.top.size(); ++i) {
    EXPECT_EQ(actual.top[i].token, expected.top[i].token);
    EXPECT_NEAR(actual.top[i].logprob, expected.top[i].logprob, 1e-4);
  }
}

class SamplingEquivalenceTest : public ::testing::TestWithParam<float> {};

TEST_P(SamplingEquivalenceTest, EveryShapeDrawsWhatAllLogitsGive) {
  const auto model = MakeModel(GetParam());
  ASSERT_OK(model);
  std::vector<SliceOutput> expected;
  for (const ParallelConfig& shape : {ParallelConfig{}, ParallelConfig{.tp = 2},
                                      ParallelConfig{.tp = 2, .cp = 2}, ParallelConfig{.tp = 4}}) {
    const auto replica = LocalReplica::Form(*model, {.config = shape});
    ASSERT_OK(replica);
    for (const bool whole : {true, false}) {
      SCOPED_TRACE(absl::StrCat("tp ", shape.tp, " cp ", shape.cp, whole ? " whole" : ""));
      const auto sampled = Sampled((*replica)->engine(), whole);
      ASSERT_OK(sampled);
      if (expected.empty()) expected = *sampled;
      for (size_t i = 0; i < expected.size(); ++i) {
        SCOPED_TRACE(absl::StrCat("sampling ", i % EverySampling().size()));
        ExpectSame((*sampled)[i], expected[i]);
      }
      (*replica)->engine().Free({.client_id = "test", .all = true},
                                [](const absl::StatusOr<int>& /*freed*/) {});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scales, SamplingEquivalenceTest, ::testing::Values(1, 30));

}  // namespace
}  // namespace muster
