#include "worker/model/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/model/checkpoint_writer.h"

namespace muster {
namespace {

std::string Length(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes;
}

std::string FileOf(absl::string_view header, size_t data_bytes) {
  return absl::StrCat(Length(header.size()), header, std::string(data_bytes, 'd'));
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> OpenBytes(absl::string_view bytes) {
  const std::string path = ::testing::TempDir() + "/safetensors_test.safetensors";
  EXPECT_OK(WriteFile(path, bytes));
  return SafetensorsFile::Open(path, "x.safetensors");
}

TEST(SafetensorsTest, FindsTensorsWhereTheyLie) {
  const auto file = OpenBytes(FileOf(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("empty":{"dtype":"I64","shape":[0,5],"data_offsets":[16,16]}})",
      16));
  ASSERT_OK(file);
  const TensorTable& tensors = (*file)->tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors.at("b").dtype, DType::kBFloat16);
  EXPECT_EQ(tensors.at("b").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*file)->data(tensors.at("b")) - (*file)->data(tensors.at("a")), 4);
  EXPECT_EQ(tensors.at("empty").dtype, std::nullopt);
}

struct BadHeader {
  std::string header;
  uint64_t data_bytes;
  std::string message;
};

// A header of tensor "t" and perhaps others.
std::string Tensor(absl::string_view fields, absl::string_view others = "") {
  return absl::StrCat(R"({"t":{)", fields, "}", others, "}");
}

TEST(SafetensorsTest, RefusesWhatIsNotWhole) {
  const std::string f32 = R"("dtype":"F32","shape":[2],"data_offsets":)";
  const BadHeader cases[] = {
      {"", 0, "x: not valid JSON"},
      {"{", 0, "x: not valid JSON"},
      {"[]", 0, "x: must be an object"},
      {R"({"t":1})", 0, "x: tensor 't': must be an object, is 1"},
      {Tensor(f32 + "[0,8]", R"(,"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), 8,
       R"("t" stands twice)"},
      {Tensor(f32 + "[0,8]", R"(,"u":{)" + f32 + "[12,20]}"), 20,
       "tensor 'u' begins at byte 12, after a hole from byte 8"},
      {Tensor(f32 + "[4,12]"), 12, "tensor 't' begins at byte 4, after a hole from byte 0"},
      {Tensor(f32 + "[0,8]", R"(,"u":{)" + f32 + "[4,12]}"), 12,
       "tensor 'u' begins at byte 4, inside another that ends at 8"},
      {Tensor(f32 + "[0,8]", R"(,"u":{)" + f32 + "[0,8]}"), 8, "inside another"},
      {Tensor(f32 + "[0,8]"), 9, "1 bytes after the last tensor"},
      {"{}", 1, "1 bytes after the last tensor"},
      {Tensor(f32 + "[0,8]"), 7, "ends at byte 8 of the data, but there are 7"},
      {Tensor(f32 + "[0,12]"), 12, "shape [2] of F32 does not fill the 12 bytes"},
      {Tensor(f32 + "[8,0]"), 8, "data_offsets must be two ascending whole numbers"},
      {Tensor(f32 + "[0]"), 8, "data_offsets must be two ascending"},
      {Tensor(f32 + "8"), 8, "data_offsets must be two ascending"},
      {Tensor(f32 + "[-8,0]"), 8, "data_offsets must be a whole number"},
      {Tensor(f32 + "[0,8.0]"), 8, "data_offsets must be a whole number"},
      {Tensor(f32 + "[0,18446744073709551615]"), 8, "data_offsets must be a whole number"},
      {Tensor(R"("dtype":"F32","data_offsets":[0,8])"), 8, "shape must be a list"},
      {Tensor(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), 8, "shape must be a list"},
      {Tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,8])"), 8, "shape must be a whole"},
      {Tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"), 8,
       "shape must be a list of at most 8"},
      // 2^62 * 4 elements of 4 bytes wrap to 0.
      {Tensor(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])"), 0,
       "does not fill the 0 bytes"},
      {Tensor(R"("dtype":"Q4","shape":[2],"data_offsets":[0,8])"), 8, R"(unknown dtype "Q4")"},
      {Tensor(R"("shape":[2],"data_offsets":[0,8])"), 8, "x: tensor 't': dtype is missing"},
  };
  for (const BadHeader& bad : cases) {
    const absl::Status status = ParseSafetensorsHeader(bad.header, bad.data_bytes, "x").status();
    EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument, bad.message);
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kModelUnusable) << status;
  }
}

TEST(SafetensorsTest, RefusesFilesThatEndEarly) {
  const std::string whole = FileOf(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  ASSERT_OK(OpenBytes(whole));
  for (size_t length = 0; length < whole.size(); ++length) {
    const absl::Status status = OpenBytes(whole.substr(0, length)).status();
    EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument, "truncated");
  }
}

TEST(SafetensorsTest, RefusesHeadersOfAbsurdLength) {
  EXPECT_STATUS(OpenBytes(Length(9) + "{}").status(), absl::StatusCode::kInvalidArgument,
                "x.safetensors: header of 9 bytes reaches beyond the file of 10 bytes");
  EXPECT_STATUS(OpenBytes(Length(kMaxSafetensorsHeaderBytes + 1) + "{}").status(),
                absl::StatusCode::kInvalidArgument, "more than the 100000000 allowed");
  EXPECT_STATUS(OpenBytes(Length(~uint64_t{0}) + "{}").status(), absl::StatusCode::kInvalidArgument,
                "more than the 100000000 allowed");
}

TEST(SafetensorsTest, NamesAFileThatIsMissingOrNone) {
  EXPECT_STATUS(SafetensorsFile::Open("/nowhere/x", "x").status(), absl::StatusCode::kNotFound,
                "x: no such file");
  EXPECT_STATUS(SafetensorsFile::Open(::testing::TempDir(), "x").status(),
                absl::StatusCode::kInvalidArgument, "x: 0 bytes are no safetensors file");
}

// Whatever stands in a file: a table whose every tensor lies inside the file, or an error.
void ExpectSane(const std::string& bytes) {
  const auto file = OpenBytes(bytes);
  if (!file.ok()) return;
  for (const auto& [name, entry] : (*file)->tensors()) {
    ASSERT_LE(entry.begin, entry.end);
    const uint64_t data_begin = 8 + (*file)->header().size();
    ASSERT_LE(data_begin + entry.end, bytes.size());
    volatile std::byte sum{};
    for (uint64_t i = entry.begin; i < entry.end; ++i) {
      sum = sum ^ (*file)->data(entry)[i - entry.begin];
    }
  }
}

TEST(SafetensorsTest, SurvivesAnyFewBytesChanged) {
  const std::string whole =
      SafetensorsBytes({{"a", {DType::kFloat32, {2, 3}, std::vector<float>(6)}},
                        {"b", {DType::kBFloat16, {4}, std::vector<float>(4)}}});
  const uint32_t seed = 20240229;
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::minstd_rand random(seed);
  const std::string digits = "0123456789-.eE[]{},:\"\\ ";
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = whole;
    for (int change = random() % 4; change >= 0; --change) {
      const size_t at = random() % bytes.size();
      const char value =
          round % 2 == 0 ? digits[random() % digits.size()] : static_cast<char>(random());
      switch (random() % 3) {
        case 0:
          bytes[at] = value;
          break;
        case 1:
          bytes.insert(at, 1, value);
          break;
        default:
          bytes.erase(at, 1 + random() % 3);
      }
    }
    ExpectSane(bytes);
  }
}

}  // namespace
}  // namespace muster
