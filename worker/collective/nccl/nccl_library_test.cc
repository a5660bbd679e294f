#include "worker/collective/nccl/nccl_library.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

// Where the fake library lies beside this program.
absl::Status LoadFake(const char* version) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  setenv("FAKE_NCCL_VERSION", version, 1);
  return NcclLibrary::Load({program.parent_path().string()}, {"libfakenccl.so"}).status();
}

std::string Wanted() {
  return absl::StrCat("built against ", NCCL_MAJOR, ".", NCCL_MINOR, ".", NCCL_PATCH);
}

TEST(NcclLibrary, OfAnotherMajorVersionIsRefusedWithBothVersions) {
  const absl::Status status = LoadFake("30105");
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "NCCL 3.1.5 (");
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "libfakenccl.so)");
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, Wanted());
}

TEST(NcclLibrary, OfAnOlderMinorVersionIsRefusedWithBothVersions) {
  EXPECT_STATUS(LoadFake("22703"), absl::StatusCode::kFailedPrecondition, "NCCL 2.27.3 (");
  EXPECT_STATUS(LoadFake("22703"), absl::StatusCode::kFailedPrecondition, Wanted());
  EXPECT_STATUS(LoadFake("2604"), absl::StatusCode::kFailedPrecondition, "NCCL 2.6.4 (");
}

TEST(NcclLibrary, OfTheRightVersionWithoutItsFunctionsIsRefusedWithTheFirstThatIsMissing) {
  EXPECT_STATUS(LoadFake(absl::StrCat(NCCL_VERSION_CODE).c_str()), absl::StatusCode::kUnavailable,
                "has no ncclGetErrorString");
}

TEST(NcclLibrary, ThatIsMissingIsNamedWithAllPlaces) {
  const absl::Status status = NcclLibrary::Load({"/nowhere"}, {"libnone.so.2"}).status();
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "NCCL was not found");
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "libnone.so.2");
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "/nowhere");
}

}  // namespace
}  // namespace muster
