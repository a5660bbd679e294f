#include "base/unix_socket.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class UnixSocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/muster-socket-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);  // with mode 0700
    directory_ = name;
    path_ = absl::StrCat(directory_, "/w0.sock");
  }
  void TearDown() override {
    for (const int fd : fds_) close(fd);
    std::filesystem::remove_all(directory_);
  }

  // Somebody listens on `path_` until Leave.
  void Listen() {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(fd, 1), 0);
    fds_.push_back(fd);
  }
  // As a process that was killed: the file stays.
  void Leave() {
    for (const int fd : fds_) close(fd);
    fds_.clear();
  }

  std::string directory_, path_;
  std::vector<int> fds_;
};

TEST_F(UnixSocketTest, ADirectoryOfThisUserAloneWillDo) { EXPECT_OK(PrepareUnixSocket(path_)); }

TEST_F(UnixSocketTest, ADirectoryThatOthersReachIsRefusedWithItsModeAndTheRemedy) {
  for (const mode_t mode : {0755, 0770, 0701, 01700, 0500}) {
    ASSERT_EQ(chmod(directory_.c_str(), mode), 0);
    const absl::Status refused = PrepareUnixSocket(path_);
    EXPECT_STATUS(refused, kPrecondition, absl::StrCat("cannot listen on ", path_));
    EXPECT_STATUS(refused, kPrecondition, "and must have 0700");
    EXPECT_STATUS(refused, kPrecondition, absl::StrCat("`chmod 700 ", directory_, "`"));
  }
  EXPECT_STATUS(PrepareUnixSocket(path_), kPrecondition, "has mode 0500");
  ASSERT_EQ(chmod(directory_.c_str(), 0700), 0);
}

TEST_F(UnixSocketTest, ADirectoryMustBeThereAndBeOne) {
  EXPECT_STATUS(PrepareUnixSocket(absl::StrCat(directory_, "/none/w0.sock")), kPrecondition,
                absl::StrCat("make it by `mkdir -m 700 ", directory_, "/none`"));
  std::ofstream(path_) << "a file";
  EXPECT_STATUS(PrepareUnixSocket(path_ + "/w0.sock"), kPrecondition,
                absl::StrCat(path_, " is no directory"));
}

TEST_F(UnixSocketTest, ASocketThatNobodyListensOnIsRemoved) {
  Listen();
  Leave();
  EXPECT_OK(PrepareUnixSocket(path_));
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(UnixSocketTest, ASocketThatSomebodyListensOnIsRefusedAndStays) {
  Listen();
  EXPECT_STATUS(PrepareUnixSocket(path_), absl::StatusCode::kUnavailable,
                absl::StrCat("cannot listen on ", path_, ": another process listens there"));
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST_F(UnixSocketTest, AFileThatIsNoSocketIsRefusedAndStays) {
  std::ofstream(path_) << "somebody's";
  EXPECT_STATUS(PrepareUnixSocket(path_), kPrecondition, "a file that is no socket");
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST(UnixPath, IsAbsoluteAndShortAndPlain) {
  EXPECT_OK(CheckUnixPath("/run/user/1000/muster/up-7_w0.sock"));
  EXPECT_OK(CheckUnixPath("/" + std::string(kMaxUnixPathBytes - 1, 'a')));
  EXPECT_STATUS(CheckUnixPath("/" + std::string(kMaxUnixPathBytes, 'a')), kInvalid,
                "has 108 bytes; it can have 107");
  for (const std::string& path :
       {std::string(), std::string("w0.sock"), std::string("/run/"), std::string("/a b"),
        std::string("/a%20b"), std::string("/a?b"), std::string("/a#b"), std::string("/a\n"),
        std::string("/a\0b", 4), std::string("/\xc3\xa9")}) {
    EXPECT_STATUS(CheckUnixPath(path), kInvalid, "is not the absolute path of a socket") << path;
  }
}

TEST(LocalAddress, IsThatOfAUnixSocketOrNone) {
  EXPECT_OK(CheckLocalAddress(""));
  EXPECT_OK(CheckLocalAddress(UnixAddress("/run/muster/w0.sock")));
  EXPECT_OK(CheckLocalAddress("unix:/" + std::string(122, 'a')));
  EXPECT_STATUS(CheckLocalAddress("unix:/" + std::string(123, 'a')), kInvalid,
                "local address has 129 bytes; it can have 128");
  for (const char* address : {"127.0.0.1:80", "unix:", "unix:w0", "unix:@w0", "unix-abstract:w0",
                              "unix:/a b", "unix:/a\n", "/run/w0", "dns:///host"}) {
    EXPECT_STATUS(CheckLocalAddress(address), kInvalid, "it can be unix: and an absolute path");
  }
}

}  // namespace
}  // namespace muster
