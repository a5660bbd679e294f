#include "client/ctl/local_fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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
// Makes a file of the name of its socket; ends where it is given none.
constexpr char kSocketNaming[] = R"(#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --unix-socket ] && socket=$2; shift; done
[ -n "$socket" ] || exit 1
touch "$socket"
exec sleep 1000
)";
constexpr char kDeafWorker[] = "#!/bin/sh\ntrap '' INT\nwhile true; do sleep 1000; done\n";
constexpr char kFailing[] = "#!/bin/sh\necho \"$(basename $0): it is full\" >&2; exit 1\n";

class LocalFleetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/fleet-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    options_.bin_dir = pattern;
    options_.model = "/model";
    // A path of its own that sockets have room in.
    runtime_ = "/tmp/fleet-XXXXXX";
    ASSERT_NE(mkdtemp(runtime_.data()), nullptr);
    setenv("XDG_RUNTIME_DIR", runtime_.c_str(), 1);
  }
  void TearDown() override { std::filesystem::remove_all(runtime_); }

  void Install(const std::string& program, const char* script) {
    const std::string path = options_.bin_dir + "/" + program;
    std::ofstream(path) << script;
    chmod(path.c_str(), 0755);
  }

  LocalFleetOptions options_;
  std::string runtime_;
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

TEST_F(LocalFleetTest, StandbysComeLaterAndOnce) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kWorker);
  options_.standbys = 2;
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  EXPECT_EQ(fleet->processes().size(), 1u + 2);
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK(fleet->StartStandbys());
    EXPECT_EQ(fleet->processes().size(), 1u + 2 + 2);
  }
  EXPECT_EQ(fleet->processes().back()->name(), "worker w3");
  EXPECT_TRUE(fleet->TakeEnded().empty());
}

TEST_F(LocalFleetTest, TheCoordinatorIsToldOfTheRange) {
  Install("muster-coordinator", kFailing);
  Install("muster-worker", kWorker);
  options_.resize_range = "1:4";
  std::ofstream(options_.bin_dir + "/muster-coordinator") << "#!/bin/sh\necho \"$@\" >&2; exit 1\n";
  EXPECT_STATUS(LocalFleet::Start(options_, signals_), absl::StatusCode::kUnavailable,
                "--resize-range 1:4");
}

TEST_F(LocalFleetTest, EveryDaemonHasACertificateOfItsOwn) {
  Install("muster-coordinator", kCoordinator);
  // Makes a file of the name of its folder of credentials.
  Install("muster-worker", R"(#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --tls ] && tls=$2; shift; done
cat "$tls/tls.crt" "$tls/tls.key" "$tls/ca.crt" > /dev/null && echo "$tls" >&2
exit 1
)");
  options_.tls = true;
  // Of a process that was killed, and of one that lives; ids end at 2^22.
  const std::string orphan = runtime_ + "/muster/up-4194305-tls";
  const std::string other = absl::StrCat(runtime_, "/muster/up-", getppid(), "-tls");
  std::filesystem::create_directories(orphan);
  std::filesystem::create_directories(other);
  std::string folder;
  {
    ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
    folder = fleet->TlsFolder("ca");
    EXPECT_TRUE(std::filesystem::exists(folder + "/ca.key"));
    for (const char* client : {"operator", "scheduler", "coordinator"}) {
      EXPECT_TRUE(std::filesystem::exists(fleet->TlsFolder(client) + "/tls.key"));
    }
    const ChildProcess& worker = *fleet->processes()[2];
    while (!fleet->processes()[2]->HasEnded()) signals_.Wait(absl::Milliseconds(1));
    EXPECT_EQ(worker.Fate(), fleet->TlsFolder("w1"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_FALSE(std::filesystem::exists(orphan));
  EXPECT_TRUE(std::filesystem::exists(other));
}

TEST_F(LocalFleetTest, WithoutTlsNobodyIsToldOfAny) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", "#!/bin/sh\necho \"$@\" >&2; exit 1\n");
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  EXPECT_EQ(fleet->TlsFolder("scheduler"), "");
  while (!fleet->processes()[1]->HasEnded()) signals_.Wait(absl::Milliseconds(1));
  EXPECT_THAT(fleet->processes()[1]->Fate(), ::testing::Not(::testing::HasSubstr("--tls")));
}

// What the workers of a fleet of four are told of their devices, in order.
std::vector<std::string> Devices(LocalFleet& fleet, SignalQueue& signals) {
  std::vector<std::string> told(4);
  size_t ended = 0;
  while (ended < told.size()) {
    for (const ChildProcess* process : fleet.TakeEnded()) {
      told[process->name().back() - '0'] = process->Fate();
      ++ended;
    }
    signals.Wait(absl::Milliseconds(1));
  }
  return told;
}

TEST_F(LocalFleetTest, WorkersShareGpusInTurn) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", "#!/bin/sh\necho \"$@\" >&2; exit 1\n");
  options_.cp = 4;
  options_.device = "cuda";
  options_.oversubscribe = 2;
  options_.load_format = "dummy";
  options_.memory_fraction = "0.5";
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  const std::vector<std::string> told = Devices(*fleet, signals_);
  for (size_t i = 0; i < told.size(); ++i) {
    EXPECT_THAT(told[i], ::testing::HasSubstr(absl::StrCat(
                             "--device cuda:", i / 2,
                             " --oversubscribe 2 --load-format dummy --memory-fraction 0.5")));
  }
}

TEST_F(LocalFleetTest, ADeviceThatIsNamedIsEverybodys) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", "#!/bin/sh\necho \"$@\" >&2; exit 1\n");
  options_.cp = 4;
  options_.device = "cuda:GPU-1";
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  for (const std::string& words : Devices(*fleet, signals_)) {
    EXPECT_THAT(words, ::testing::HasSubstr("--device cuda:GPU-1"));
    EXPECT_THAT(words, ::testing::Not(::testing::HasSubstr("--oversubscribe")));
  }
}

TEST_F(LocalFleetTest, AllComputeOnTheCpuWhereGpusAreTooFew) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", "#!/bin/sh\necho \"$@\" >&2; exit 1\n");
  options_.cp = 4;
  for (const int gpus : {0, 3, 4}) {
    options_.gpus = gpus;
    ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
    for (const std::string& words : Devices(*fleet, signals_)) {
      EXPECT_EQ(absl::StrContains(words, "--device cpu"), gpus == 3) << words;
    }
  }
}

TEST_F(LocalFleetTest, EveryWorkerHasASocketInTheUsersOwnDirectoryThatGoesWithTheFleet) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kSocketNaming);
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  const std::string mine = runtime_ + "/muster/up-" + std::to_string(getpid());
  for (const char* worker : {"-w0.sock", "-w1.sock"}) {
    while (access((mine + worker).c_str(), F_OK) != 0) signals_.Wait(absl::Milliseconds(1));
  }
  fleet->Stop(signals_);
  fleet.reset();
  EXPECT_NE(access((mine + "-w0.sock").c_str(), F_OK), 0);
  EXPECT_NE(access((mine + "-w1.sock").c_str(), F_OK), 0);
}

TEST_F(LocalFleetTest, WorkersHaveNoSocketWhereOthersCouldReachIt) {
  Install("muster-coordinator", kCoordinator);
  Install("muster-worker", kSocketNaming);
  ASSERT_EQ(mkdir((runtime_ + "/muster").c_str(), 0755), 0);
  ASSERT_OK_AND_ASSIGN(auto fleet, LocalFleet::Start(options_, signals_));
  while (fleet->TakeEnded().empty()) signals_.Wait(absl::Milliseconds(1));
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
