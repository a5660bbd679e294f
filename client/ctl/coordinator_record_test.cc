#include "client/ctl/coordinator_record.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

std::string FreshDirectory() {
  std::string pattern = ::testing::TempDir() + "/record-XXXXXX";
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  return pattern;
}

TEST(CoordinatorRecordTest, ReadsWhatWasWrittenLast) {
  const CoordinatorRecord record(FreshDirectory());
  EXPECT_EQ(record.Read(), std::nullopt);
  ASSERT_OK(record.Write({"127.0.0.1:1", ""}));
  ASSERT_OK(record.Write({"127.0.0.1:2", ""}));
  EXPECT_EQ(record.Read(), (RecordedFleet{"127.0.0.1:2", ""}));
}

TEST(CoordinatorRecordTest, HasTheFolderOfAFleetWithTls) {
  const CoordinatorRecord record(FreshDirectory());
  const RecordedFleet fleet = {"127.0.0.1:1", "/run/a folder/operator"};
  ASSERT_OK(record.Write(fleet));
  EXPECT_EQ(record.Read(), fleet);
}

TEST(CoordinatorRecordTest, RemovesOnlyItsOwnAddress) {
  const CoordinatorRecord record(FreshDirectory());
  ASSERT_OK(record.Write({"127.0.0.1:2", ""}));
  record.Remove("127.0.0.1:1");
  EXPECT_EQ(record.Read(), (RecordedFleet{"127.0.0.1:2", ""}));
  record.Remove("127.0.0.1:2");
  EXPECT_EQ(record.Read(), std::nullopt);
}

TEST(CoordinatorRecordTest, CreatesAPrivateDirectoryOfTheUser) {
  setenv("XDG_RUNTIME_DIR", FreshDirectory().c_str(), 1);
  ASSERT_OK_AND_ASSIGN(const CoordinatorRecord record, CoordinatorRecord::Open());
  struct stat facts;
  ASSERT_EQ(stat(record.directory().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
}

TEST(CoordinatorRecordTest, RefusesADirectoryThatOthersMayWrite) {
  const std::string runtime = FreshDirectory();
  setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  const std::string directory = runtime + "/muster";
  ASSERT_EQ(mkdir(directory.c_str(), 0700), 0);
  ASSERT_EQ(chmod(directory.c_str(), 0777), 0);
  EXPECT_STATUS(CoordinatorRecord::Open(), absl::StatusCode::kFailedPrecondition, directory);
}

}  // namespace
}  // namespace muster::ctl
