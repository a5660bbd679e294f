#include "worker/device/cuda/shared_library.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

std::string FreshFolder(const std::string& name) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/shared_library_test/", name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

TEST(SharedLibrary, IsFoundByTheLoaderAndGivesItsFunctions) {
  ASSERT_OK_AND_ASSIGN(const SharedLibrary library,
                       SharedLibrary::Open("libm", {"libnone.so.1", "libm.so.6"}));
  EXPECT_EQ(library.path(), "libm.so.6");
  ASSERT_OK_AND_ASSIGN(auto* const root, library.Function<double(double)>("sqrt"));
  EXPECT_EQ(root(49), 7);
  EXPECT_STATUS(library.Function<void()>("no_such_function"), absl::StatusCode::kUnavailable,
                "libm.so.6 has no no_such_function");
}

TEST(SharedLibrary, IsFoundInFoldersThatTheLoaderDoesNotKnow) {
  const std::string folder = FreshFolder("named");
  ASSERT_OK_AND_ASSIGN(const SharedLibrary libm, SharedLibrary::Open("libm", {"libm.so.6"}));
  for (const char* known : {"/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6",
                            "/lib64/libm.so.6"}) {
    if (std::filesystem::exists(known)) {
      std::filesystem::create_symlink(known, absl::StrCat(folder, "/libelsewhere.so.6"));
      break;
    }
  }
  ASSERT_OK_AND_ASSIGN(const SharedLibrary extra,
                       SharedLibrary::Open("libm", {"libelsewhere.so.6"}, {"/nowhere", folder}));
  EXPECT_EQ(extra.path(), absl::StrCat(folder, "/libelsewhere.so.6"));
  setenv("MUSTER_CUDA_LIBRARY_PATH", absl::StrCat("/nowhere:", folder).c_str(), 1);
  EXPECT_OK(SharedLibrary::Open("libm", {"libelsewhere.so.6"}));
  unsetenv("MUSTER_CUDA_LIBRARY_PATH");
}

TEST(SharedLibrary, ThatIsMissingIsNamedWithAllPlaces) {
  const std::string home = FreshFolder("home");
  std::filesystem::create_directories(home + "/lib64");
  setenv("CUDA_HOME", home.c_str(), 1);
  setenv("LD_LIBRARY_PATH", "/some/where", 1);
  const absl::Status status =
      SharedLibrary::Open("NCCL", {"libnone.so.2", "libnone.so.1"}, {"/nowhere"}).status();
  unsetenv("CUDA_HOME");
  for (const std::string& part :
       {std::string("NCCL was not found"), std::string("libnone.so.2, libnone.so.1"),
        std::string("/some/where"), std::string("/nowhere"), home + "/lib64",
        std::string("MUSTER_CUDA_LIBRARY_PATH")}) {
    EXPECT_STATUS(status, absl::StatusCode::kUnavailable, part);
  }
}

TEST(SharedLibrary, ThatIsBrokenSaysWhy) {
  const std::string folder = FreshFolder("broken");
  std::ofstream(folder + "/libbroken.so.1") << "no library";
  const absl::Status status = SharedLibrary::Open("NCCL", {"libbroken.so.1"}, {folder}).status();
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "could not be loaded: ");
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, folder + "/libbroken.so.1: ");
}

TEST(CudaLibraryFolders, HoldsThoseOfPythonsPackages) {
  const std::string prefix = FreshFolder("environment");
  const std::string lib = prefix + "/lib/python3.12/site-packages/nvidia/nccl/lib";
  std::filesystem::create_directories(lib);
  setenv("VIRTUAL_ENV", prefix.c_str(), 1);
  const std::vector<std::string> folders = CudaLibraryFolders();
  unsetenv("VIRTUAL_ENV");
  EXPECT_EQ(std::count(folders.begin(), folders.end(), lib), 1);
}

}  // namespace
}  // namespace muster
