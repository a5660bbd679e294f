#include "client/certs/tls_folder.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/status_matchers.h"

namespace muster::certs {
namespace {

class TlsFolderTest : public ::testing::Test {
 protected:
  TlsFolderTest() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~TlsFolderTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name));
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  mode_t Mode(const std::string& name) const {
    struct stat facts = {};
    EXPECT_EQ(stat(Path(name).c_str(), &facts), 0);
    return facts.st_mode & 07777;
  }
  size_t Entries(const std::string& name) const {
    const std::filesystem::directory_iterator entries(Path(name));
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }

  std::string directory_ = ::testing::TempDir() + "/tls_folder_test.XXXXXX";
};

TEST_F(TlsFolderTest, HasTheThreeFilesAndKeepsTheKeyToItsUser) {
  ASSERT_OK(WriteTlsFolder(Path("a/b"), {"certificate", "key", "authority"}));
  EXPECT_EQ(Read("a/b/tls.crt"), "certificate");
  EXPECT_EQ(Read("a/b/tls.key"), "key");
  EXPECT_EQ(Read("a/b/ca.crt"), "authority");
  EXPECT_EQ(Mode("a/b"), 0700u);
  EXPECT_EQ(Mode("a/b/tls.key"), 0600u);
}

TEST_F(TlsFolderTest, ReplacesAllAtOnceAndLeavesNothingOfTheFormerOnes) {
  ASSERT_OK(WriteTlsFolder(Path("t"), {"certificate", "key", "authority"}));
  const auto link = std::filesystem::read_symlink(Path("t/..data"));
  ASSERT_OK(WriteTlsFolder(Path("t"), {"certificate 2", "key 2", "authority 2"}));
  EXPECT_EQ(Read("t/tls.crt"), "certificate 2");
  EXPECT_EQ(Read("t/tls.key"), "key 2");
  EXPECT_NE(std::filesystem::read_symlink(Path("t/..data")), link);
  EXPECT_EQ(Entries("t"), 5u);  // the three, the link and where it leads
}

TEST_F(TlsFolderTest, PlainFilesOfAnotherToolGiveWay) {
  std::filesystem::create_directory(Path("t"));
  for (const char* name : {"t/tls.crt", "t/tls.key", "t/other"}) std::ofstream(Path(name)) << "old";
  ASSERT_OK(WriteTlsFolder(Path("t"), {"certificate", "key", "authority"}));
  EXPECT_EQ(Read("t/tls.crt"), "certificate");
  EXPECT_EQ(Read("t/other"), "old");
}

TEST_F(TlsFolderTest, AFileInItsPlaceIsRefused) {
  std::ofstream(Path("t")) << "text";
  EXPECT_TRUE(testing::HasStatus(WriteTlsFolder(Path("t"), {}),
                                 absl::StatusCode::kFailedPrecondition, "is no folder"));
}

}  // namespace
}  // namespace muster::certs
