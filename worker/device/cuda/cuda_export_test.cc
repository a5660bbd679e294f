#include "worker/device/cuda/cuda_export.h"

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

CudaHandle SomeHandle() {
  std::string ipc(64, '\0');
  for (size_t i = 0; i < ipc.size(); ++i) ipc[i] = static_cast<char>(i * 7 + 250);
  return {.pid = 4711,
          .nonce = UINT64_MAX,
          .uuid = "GPU-0a1b2c3d-0000-1111-2222-333344445555",
          .bytes = uint64_t{3} << 33,
          .ipc = ipc};
}

TEST(CudaHandle, SurvivesItsText) {
  const CudaHandle handle = SomeHandle();
  const std::string text = handle.Encode();
  EXPECT_EQ(text.find_first_of(" ;\n\t"), std::string::npos) << text;
  ASSERT_OK_AND_ASSIGN(const CudaHandle decoded, CudaHandle::Decode(text));
  EXPECT_EQ(decoded.pid, handle.pid);
  EXPECT_EQ(decoded.nonce, handle.nonce);
  EXPECT_EQ(decoded.uuid, handle.uuid);
  EXPECT_EQ(decoded.bytes, handle.bytes);
  EXPECT_EQ(decoded.ipc, handle.ipc);
}

TEST(CudaHandle, OfAnotherVersionOrKindIsRefused) {
  const std::string text = SomeHandle().Encode();
  const std::string body = text.substr(text.find(','));
  EXPECT_OK(CudaHandle::Decode("cuda1" + body));
  for (const std::string& wrong :
       {std::string(), std::string("nonsense"), "cuda2" + body, text + "0", text + ",0",
        text.substr(0, text.size() - 2), "cuda1,x" + body, std::string("1,2,3,4")}) {
    EXPECT_STATUS(CudaHandle::Decode(wrong), absl::StatusCode::kInvalidArgument, "not a handle")
        << wrong;
  }
}

TEST(CudaHandle, WhoseLastPartIsNotHexadecimalIsRefused) {
  std::string text = SomeHandle().Encode();
  text.back() = 'x';
  EXPECT_STATUS(CudaHandle::Decode(text), absl::StatusCode::kInvalidArgument, "not a handle");
}

TEST(ExportedBytes, AreWholePiecesWithRoomForTheNonce) {
  constexpr uint64_t kPiece = uint64_t{2} << 20;
  EXPECT_EQ(ExportedBytes(0), kPiece);
  EXPECT_EQ(ExportedBytes(kPiece - 8), kPiece);
  EXPECT_EQ(ExportedBytes(kPiece - 7), 2 * kPiece);
  EXPECT_EQ(ExportedBytes(kPiece), 2 * kPiece);
}

}  // namespace
}  // namespace muster
