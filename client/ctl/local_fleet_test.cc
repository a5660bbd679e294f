#include "client/ctl/local_fleet.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

// Stand-ins for the daemons, written in shell.
constexpr char kCoordinator[] = R"(#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --port-file ] && port=$2; shift; done
echo 127.0.0.1:4242 > "$port.new"; mv "$port.new" "$port"
exec sleep 1000
)";
constexpr char kWorker[] = "#!/bin/sh\nexec sleep 1000\n";
constexpr char kDeafWorker[] = "#!/bin/sh\ntrap '' TERM\nwhile true; do sleep 1000; done\n";
constexpr char kFailing[] = "#!/bin/sh\necho \"$(basename $0): it is full\" >&2; exit 1\n";

class LocalFleetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/fleet-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    options_.bin_dir = pattern;
    options_.model = "/model";
    setenv("XDG_RUNTIME_DIR", pattern.c_str(), 1);
  }

  void Install(const std::string& program, const char* script) {
    const std::string path = options_.bin_dir + "/" + program;
    std::ofstream(path) << script;
    chmod(path.c_str(), 0755);
  }

  LocalFleetOptions options_;
  SignalQueue signals_;
};

TEST_F(LocalFleetTest, StartsACoordinatorAndAWorkerForEachRank) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kWorker);
  options_.tp = 3;
  options_.replicas = 2;
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  EXPECT_EQ(fleet->coordinator_address(), "127.0.0.1:4242");
  EXPECT_EQ(fleet->processes().size(), 1u + 3 * 2 * 2);
  EXPECT_TRUE(fleet->TakeEnded().empty());
}

TEST_F(LocalFleetTest, StopLeavesNothingAndKillsTheDeaf) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kDeafWorker);
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  fleet->Stop(signals_, absl::Milliseconds(50));
  for (const auto& process : fleet->processes()) EXPECT_EQ(kill(process->pid(), 0), -1);
}

TEST_F(LocalFleetTest, ASignalCutsTheGraceShort) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kDeafWorker);
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  kill(getpid(), SIGINT);
  fleet->Stop(signals_, absl::InfiniteDuration());
  for (const auto& process : fleet->processes()) EXPECT_EQ(kill(process->pid(), 0), -1);
}

TEST_F(LocalFleetTest, EveryEndIsTakenOnce) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kFailing);
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  std::vector<std::string> ended;
  while (ended.size() < 2) {
    for (const ChildProcess* process : fleet->TakeEnded()) {
      ended.push_back(process->name() + ": " + process->Fate());
    }
    signals_.Wait(absl::Milliseconds(1));
  }
  std::sort(ended.begin(), ended.end());
  EXPECT_EQ(ended[0], "worker w0: it is full");
  EXPECT_EQ(ended[1], "worker w1: it is full");
  EXPECT_TRUE(fleet->TakeEnded().empty());
}

TEST_F(LocalFleetTest, ACoordinatorThatFailsIsQuoted) {
  Install("muster-coordinator", kFailing);
  Install("muster-worker", kWorker);
  EXPECT_STATUS(LocalFleet::Start(options_, signals_), absl::StatusCode::kUnavailable,
                "the coordinator: it is full");
}

TEST_F(LocalFleetTest, AMissingProgramIsNamed) {
  Install("muster-coordinator", kCoordinator);
  EXPECT_STATUS(LocalFleet::Start(options_, signals_), absl::StatusCode::kNotFound,
                options_.bin_dir + "/muster-worker");
}

TEST_F(LocalFleetTest, ASignalEndsTheWaitForTheCoordinator) {
  Install("muster-coordinator", kWorker);
  Install("muster-worker", kWorker);
  kill(getpid(), SIGTERM);
  EXPECT_STATUS(LocalFleet::Start(options_, signals_), absl::StatusCode::kCancelled, "interrupted");
}

}  // namespace
}  // namespace muster::ctl
