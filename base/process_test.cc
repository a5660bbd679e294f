#include "base/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

class PortFileTest : public ::testing::Test {
 protected:
  PortFileTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    path_ = directory_ + "/port";
  }
  ~PortFileTest() override { std::filesystem::remove_all(directory_); }

  static std::string Contents(std::istream& in) {
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::string Contents() const {
    std::ifstream in(path_);
    return Contents(in);
  }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), {}));
  }

  std::string directory_ = ::testing::TempDir() + "/port-XXXXXX";
  std::string path_;
};

TEST_F(PortFileTest, HoldsTheAddressAndNothingStandsBesideIt) {
  ASSERT_OK(WritePortFile(path_, "127.0.0.1:7600"));
  EXPECT_EQ(Contents(), "127.0.0.1:7600\n");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(PortFileTest, ReplacesAnEarlierOneInOneStep) {
  ASSERT_OK(WritePortFile(path_, "[::1]:65535"));
  std::ifstream reader(path_);
  ASSERT_OK(WritePortFile(path_, "127.0.0.1:1"));
  // Who had it open still reads all of the earlier one: it was not written over.
  EXPECT_EQ(Contents(reader), "[::1]:65535\n");
  EXPECT_EQ(Contents(), "127.0.0.1:1\n");
}

TEST_F(PortFileTest, IsNeverSeenInPart) {
  ASSERT_OK(WritePortFile(path_, "first"));
  std::thread writer([&] {
    for (int i = 0; i < 200; ++i) EXPECT_OK(WritePortFile(path_, i % 2 ? "first" : "the second"));
    EXPECT_OK(WritePortFile(path_, "last"));
  });
  for (std::string seen = Contents(); seen != "last\n"; seen = Contents()) {
    EXPECT_TRUE(seen == "first\n" || seen == "the second\n") << seen;
  }
  writer.join();
}

TEST_F(PortFileTest, NamesThePathWhoseDirectoryIsMissing) {
  const std::string path = directory_ + "/missing/port";
  EXPECT_STATUS(WritePortFile(path, "127.0.0.1:1"), absl::StatusCode::kNotFound,
                "cannot write port file " + path);
}

TEST_F(PortFileTest, LeavesNothingBehindWhenItFails) {
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(WritePortFile(path_, "127.0.0.1:1").ok());
  EXPECT_EQ(Files(), 1u);
  EXPECT_TRUE(std::filesystem::is_directory(path_));
}

// The signals of these run in a child of their own: gtest forks for EXPECT_EXIT.

TEST(ShutdownSignalDeathTest, WaitReturnsTheSignalThatCame) {
  for (const int number : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          ShutdownSignal shutdown;
          kill(getpid(), number);
          _exit(shutdown.Wait());
        },
        ExitedWithCode(number), "");
  }
}

TEST(ShutdownSignalDeathTest, ARequestFromAThreadIsASignalToo) {
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        std::thread(ShutdownSignal::Request).detach();
        _exit(shutdown.Wait());
      },
      ExitedWithCode(SIGTERM), "");
}

TEST(ShutdownSignalDeathTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        ShutdownSignal::Request();
        shutdown.Wait();
        kill(getpid(), SIGINT);
      },
      KilledBySignal(SIGINT), "");
}

TEST(ShutdownSignalDeathTest, AClosedPipeIsAnErrorAndNoSignal) {
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        int ends[2];
        if (pipe(ends) != 0) _exit(1);
        close(ends[0]);
        const bool refused = write(ends[1], "x", 1) < 0 && errno == EPIPE;
        _exit(refused ? 0 : 2);
      },
      ExitedWithCode(0), "");
}

TEST(ExitWithinDeathTest, EndsAProcessThatDoesNotEnd) {
  EXPECT_EXIT(
      {
        ExitWithin(absl::ZeroDuration(), 7);
        while (true) pause();
      },
      ExitedWithCode(7), "");
}

TEST(DieWithParentDeathTest, RefusesAParentThatIsGone) {
  EXPECT_EXIT(
      {
        const bool own = DieWithParent(getppid()).ok();
        const bool gone = absl::IsFailedPrecondition(DieWithParent(getppid() + 1));
        _exit(own && gone ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

// In a child whose parent ends as soon as the child has asked to die with it.
[[noreturn]] void DieWithTheParentThatReads(int asked) {
  alarm(60);  // another signal than the one expected, should that never come
  if (!DieWithParent(getppid()).ok()) _exit(1);
  if (write(asked, "x", 1) != 1) _exit(2);
  while (true) pause();
}

TEST(DieWithParentDeathTest, TheChildIsKilledWhenItsParentEnds) {
  // An orphan becomes a child of the process of this test, which can then wait for it.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const pid_t parent = fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    int ends[2];
    if (pipe(ends) != 0) _exit(3);
    if (fork() == 0) DieWithTheParentThatReads(ends[1]);
    char byte = 0;
    _exit(read(ends[0], &byte, 1) == 1 ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(waitpid(parent, &status, 0), parent);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  ASSERT_GT(waitpid(-1, &status, 0), 0) << "the orphan";
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(ProcessTest, TheLimitOfOpenFilesIsRaisedAsFarAsItGoes) {
  EXPECT_EXIT(
      {
        rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 64;
        setrlimit(RLIMIT_NOFILE, &limit);
        RaiseOpenFilesLimit();
        getrlimit(RLIMIT_NOFILE, &limit);
        _exit(limit.rlim_cur == limit.rlim_max ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

}  // namespace
}  // namespace muster
