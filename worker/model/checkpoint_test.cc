#include "worker/model/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/model/checkpoint_writer.h"
#include "worker/model/model_spec.h"

namespace muster {
namespace {

constexpr char kIndex[] = "model.safetensors.index.json";

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/checkpoint_test/" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }

  void Write(const std::string& name, const std::string& bytes) {
    ASSERT_OK(WriteFile(directory_ + "/" + name, bytes));
  }
  absl::Status OpenStatus() const { return Checkpoint::Open(directory_).status(); }
  uint64_t DigestOf() const {
    Digest digest;
    (*Checkpoint::Open(directory_))->AddTo(digest);
    return digest.value();
  }

  std::string directory_;
};

const NamedTensors kA = {{"a", {DType::kBFloat16, {1, 2}, {1, 2}}}};
const NamedTensors kB = {{"b", {DType::kFloat32, {2}, {3, 4}}}};

TEST_F(CheckpointTest, ReadsOneFile) {
  NamedTensors both = kA;
  both.insert(kB.begin(), kB.end());
  Write("model.safetensors", SafetensorsBytes(both));
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_OK(checkpoint);
  const auto b = (*checkpoint)->Find("b", {2});
  ASSERT_OK(b);
  EXPECT_EQ(b->dtype, DType::kFloat32);
  float values[2];
  std::memcpy(values, b->data, sizeof(values));
  EXPECT_EQ(values[1], 4);
  EXPECT_EQ((*checkpoint)->dtype(), DType::kFloat32);
}

TEST_F(CheckpointTest, ReadsTheFilesOfAnIndex) {
  Write("1.safetensors", SafetensorsBytes(kA));
  Write("2.safetensors", SafetensorsBytes(kB));
  Write(kIndex, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_OK(checkpoint);
  EXPECT_OK((*checkpoint)->Find("a", {1, 2}));
  EXPECT_OK((*checkpoint)->Find("b", {2}));
}

TEST_F(CheckpointTest, NamesTensorShapesAndFile) {
  Write("model.safetensors", SafetensorsBytes(kA));
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_OK(checkpoint);
  const absl::Status missing = (*checkpoint)->Find("c", {1}).status();
  EXPECT_STATUS(missing, absl::StatusCode::kNotFound, "model.safetensors: tensor 'c' is missing");
  EXPECT_EQ(DetailOf(missing).reason, ErrorReason::kModelUnusable);
  EXPECT_STATUS((*checkpoint)->Find("a", {2, 1}).status(), absl::StatusCode::kInvalidArgument,
                "model.safetensors: tensor 'a' has shape [1, 2], config.json asks for [2, 1]");
}

TEST_F(CheckpointTest, RefusesTypesThatItCannotConvert) {
  const std::string header = R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})";
  Write("model.safetensors", std::string(1, static_cast<char>(header.size())) +
                                 std::string(7, '\0') + header + "12345678");
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_OK(checkpoint);
  EXPECT_STATUS((*checkpoint)->Find("i", {1}).status(), absl::StatusCode::kInvalidArgument,
                "tensor 'i' is I64; supported: BF16, F16, F32");
}

TEST_F(CheckpointTest, NamesWhatADirectoryLacks) {
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kNotFound,
                "neither model.safetensors nor model.safetensors.index.json");
  EXPECT_STATUS(Checkpoint::Open(directory_ + "/none").status(), absl::StatusCode::kNotFound,
                "does not exist");
  Write(kIndex, R"({"weight_map": {"a": "1.safetensors"}})");
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kNotFound, "1.safetensors: no such file");
  Write("1.safetensors", SafetensorsBytes(kB));
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument,
                "1.safetensors: tensor 'a', which model.safetensors.index.json says is here");
  Write("1.safetensors", SafetensorsBytes(kB).substr(0, 40));
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument, "1.safetensors: header of");
}

TEST_F(CheckpointTest, AnIndexReachesNoFileOutside) {
  for (const char* name : {"../x", "/etc/passwd", "..", ".", "", "a/b"}) {
    Write(kIndex, std::string(R"({"weight_map": {"a": ")") + name + R"("}})");
    EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument,
                  "which is no file of this directory");
  }
  Write(kIndex, R"({"weight_map": {"a": 7}})");
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument, "a must be a string, is 7");
  Write(kIndex, R"({"weight_map": []})");
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument,
                "model.safetensors.index.json: weight_map: must be an object");
  Write(kIndex, "{}");
  EXPECT_STATUS(OpenStatus(), absl::StatusCode::kInvalidArgument, "weight_map is missing");
}

TEST_F(CheckpointTest, DigestFollowsNamesAndHeaders) {
  Write("model.safetensors", SafetensorsBytes(kA));
  const uint64_t first = DigestOf();
  EXPECT_EQ(DigestOf(), first);
  Write("model.safetensors", SafetensorsBytes(kB));
  EXPECT_NE(DigestOf(), first);
}

TEST_F(CheckpointTest, SpecSaysWhatPlanningNeeds) {
  const ModelConfig config = {.architecture = "LlamaForCausalLM",
                              .name = "tiny",
                              .layers = 1,
                              .hidden = 4,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_dim = 2,
                              .ffn = 3,
                              .vocabulary = 5,
                              .max_positions = 16,
                              .tied_embeddings = true,
                              .eos_token_ids = {2}};
  const NamedTensors tensors = RandomLlama(config, DType::kBFloat16, 1);
  Write("model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_OK(checkpoint);
  const ModelSpec spec = ToSpec(config, **checkpoint, DType::kFloat32);
  EXPECT_EQ(spec.dtype, "float32");
  EXPECT_EQ(spec.kv_heads, 1);
  EXPECT_EQ(spec.eos_token_ids, std::vector<int>{2});
  EXPECT_EQ(spec.digest.size(), 16u);
  uint64_t elements = 0;
  for (const auto& [name, tensor] : tensors) elements += tensor.values.size();
  EXPECT_EQ(spec.weight_bytes, elements * sizeof(float));

  EXPECT_EQ(*ChooseDType("auto", config, **checkpoint), DType::kBFloat16);
  ModelConfig half = config;
  half.dtype = DType::kFloat16;
  EXPECT_EQ(*ChooseDType("auto", half, **checkpoint), DType::kFloat32);
  EXPECT_EQ(*ChooseDType("bfloat16", half, **checkpoint), DType::kBFloat16);
  EXPECT_STATUS(ChooseDType("float16", half, **checkpoint).status(),
                absl::StatusCode::kInvalidArgument, "'float16' needs a CUDA device");
  EXPECT_STATUS(ChooseDType("int8", half, **checkpoint).status(),
                absl::StatusCode::kInvalidArgument, "none of auto, float32, bfloat16, float16");
  for (const char* option : {"auto", "float16"}) {
    EXPECT_EQ(*ChooseDType(option, half, **checkpoint, /*has_float16=*/true), DType::kFloat16);
  }
}

}  // namespace
}  // namespace muster
