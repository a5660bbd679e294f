#include "client/ctl/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~FilesTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  size_t FileCount() const {
    const std::filesystem::directory_iterator entries(directory_);
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }

  std::string directory_ = ::testing::TempDir() + "/files_test.XXXXXX";
};

TEST_F(FilesTest, WhatIsCommittedIsReadAndReplacesWhatWasThere) {
  const std::string bytes(200000, 'x');
  for (const std::string& content : {std::string("first"), bytes}) {
    ASSERT_OK_AND_ASSIGN(PendingFile file, PendingFile::Create(Path("a")));
    ASSERT_OK(file.Commit(content));
    ASSERT_OK_AND_ASSIGN(const std::string read, ReadFile(Path("a")));
    EXPECT_EQ(read, content);
  }
  EXPECT_EQ(FileCount(), 1u);
}

TEST_F(FilesTest, WithoutACommitNothingChanges) {
  {
    ASSERT_OK_AND_ASSIGN(PendingFile file, PendingFile::Create(Path("a")));
    PendingFile moved = std::move(file);
  }
  EXPECT_EQ(FileCount(), 0u);
}

TEST_F(FilesTest, APathThatCannotBeWrittenFailsAtOnce) {
  EXPECT_STATUS(PendingFile::Create(Path("none/a")), absl::StatusCode::kNotFound, "none/a'");
  EXPECT_FALSE(PendingFile::Create(directory_).ok());
  EXPECT_EQ(FileCount(), 0u);
}

TEST_F(FilesTest, WhatIsNoPlainFileIsWrittenWhereItIs) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  const int reader = open(Path("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_OK_AND_ASSIGN(PendingFile file, PendingFile::Create(Path("pipe")));
  ASSERT_OK(file.Commit("abc"));
  char bytes[4] = {};
  EXPECT_EQ(read(reader, bytes, 3), 3);
  EXPECT_STREQ(bytes, "abc");
  close(reader);
  EXPECT_EQ(FileCount(), 1u);
}

TEST_F(FilesTest, AFileThatCannotBeReadIsNamed) {
  EXPECT_STATUS(ReadFile(Path("none")), absl::StatusCode::kNotFound,
                "cannot read '" + Path("none"));
  EXPECT_STATUS(ReadFile(directory_), absl::StatusCode::kFailedPrecondition, directory_);
}

}  // namespace
}  // namespace muster::ctl
