#include "client/ctl/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

absl::StatusOr<std::unique_ptr<ChildProcess>> Shell(const std::string& script,
                                                    const std::string& log_path = "") {
  return ChildProcess::Start(
      {.name = "child", .command = {"/bin/sh", "-c", script}, .log_path = log_path});
}

// Until it has ended; the test's own time limit bounds it.
void Await(ChildProcess& child) {
  while (!child.HasEnded()) absl::SleepFor(absl::Milliseconds(1));
}

TEST(ChildProcessTest, ItsLastWordsAreItsFateWhenItFails) {
  ASSERT_OK_AND_ASSIGN(auto child, Shell("echo one; echo 'sh: no such directory: /x' >&2;"
                                         "echo and some log; exit 1"));
  Await(*child);
  EXPECT_EQ(child->exit_status(), 1);
  EXPECT_EQ(child->Fate(), "no such directory: /x");
}

TEST(ChildProcessTest, AStatusSpeaksForItselfWhereNothingWasSaid) {
  ASSERT_OK_AND_ASSIGN(auto child, Shell("exit 3"));
  Await(*child);
  EXPECT_EQ(child->Fate(), "ended with status 3");
}

TEST(ChildProcessTest, ASignalIsNamed) {
  ASSERT_OK_AND_ASSIGN(auto child, Shell("kill -9 $$"));
  Await(*child);
  EXPECT_TRUE(child->killed_by_signal());
  EXPECT_EQ(child->exit_status(), 137);
  EXPECT_EQ(child->Fate(), "was killed by signal 9 (Killed)");
}

TEST(ChildProcessTest, AProgramThatIsNotThereIsNamed) {
  ASSERT_OK_AND_ASSIGN(auto child,
                       ChildProcess::Start({.name = "child", .command = {"/nowhere/program"}}));
  Await(*child);
  EXPECT_EQ(child->Fate(), "cannot run /nowhere/program: No such file or directory");
}

TEST(ChildProcessTest, TheLogFileHasAllThatWasPrinted) {
  const std::string path = ::testing::TempDir() + "/child.log";
  ASSERT_OK_AND_ASSIGN(auto child, Shell("echo out; echo error >&2", path));
  Await(*child);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "out\nerror\n");
}

TEST(ChildProcessTest, DestructionKillsWhatIgnoresSignals) {
  ASSERT_OK_AND_ASSIGN(auto child, Shell("trap '' TERM INT; kill -STOP $$; sleep 1000"));
  const pid_t pid = child->pid();
  child.reset();
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(ChildProcessTest, ItIsOutsideTheProcessGroupOfItsParent) {
  ASSERT_OK_AND_ASSIGN(auto child, Shell("read nothing; sleep 1000"));
  // The child enters its own group before it runs anything; until then it is in ours.
  while (getpgid(child->pid()) == getpgid(0)) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(getpgid(child->pid()), child->pid());
}

}  // namespace
}  // namespace muster::ctl
