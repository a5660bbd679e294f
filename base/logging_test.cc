#include "base/logging.h"

#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Lines = std::vector<std::string>;

// What `write` logs, without the times that begin the lines.
template <typename Write>
Lines Logged(const char* level, Write write) {
  ::testing::internal::CaptureStderr();
  EXPECT_OK(InitLogging("worker gpu-3", level));
  write();
  Lines lines = absl::StrSplit(::testing::internal::GetCapturedStderr(), '\n', absl::SkipEmpty());
  for (std::string& line : lines) {
    const size_t space = line.find(' ');
    absl::Time time;
    EXPECT_TRUE(absl::ParseTime("%Y-%m-%dT%H:%M:%E3S", line.substr(0, space), &time, nullptr))
        << line;
    line.erase(0, space + 1);
  }
  EXPECT_OK(InitLogging("base_test", "info"));
  return lines;
}

void LogAtEveryLevel() {
  const Logger log;
  log.Debug("one");
  log.Info("two");
  log.Warning("three");
  log.Error("four");
}

TEST(Logging, ALevelKeepsItselfAndWhatIsWorse) {
  const Lines all = {"D worker gpu-3 one", "I worker gpu-3 two", "W worker gpu-3 three",
                     "E worker gpu-3 four"};
  EXPECT_EQ(Logged("debug", LogAtEveryLevel), all);
  EXPECT_EQ(Logged("info", LogAtEveryLevel), Lines(all.begin() + 1, all.end()));
  EXPECT_EQ(Logged("warning", LogAtEveryLevel), Lines(all.begin() + 2, all.end()));
  EXPECT_EQ(Logged("error", LogAtEveryLevel), Lines(all.begin() + 3, all.end()));
  EXPECT_EQ(Logged("off", LogAtEveryLevel), Lines());
}

TEST(Logging, EveryLineOfARankNamesReplicaEpochAndRank) {
  const Lines lines = Logged("debug", [] {
    const Logger log(ReplicaIndex(1), Epoch(18), GlobalRank(3));
    log.Debug("a");
    log.Error("b");
  });
  EXPECT_EQ(lines, (Lines{"D worker gpu-3 [replica 1 epoch 18 rank 3] a",
                          "E worker gpu-3 [replica 1 epoch 18 rank 3] b"}));
}

TEST(Logging, JoinsWhatItIsGiven) {
  EXPECT_EQ(Logged("info", [] { Logger().Info("held ", 3, " of ", size_t{4}, " bytes"); }),
            Lines{"I worker gpu-3 held 3 of 4 bytes"});
}

TEST(Logging, BracesAreNothingSpecial) {
  EXPECT_EQ(Logged("info", [] { Logger().Info("{} {0} {"); }), Lines{"I worker gpu-3 {} {0} {"});
}

TEST(Logging, OneEventIsOneLineWhateverItsTextHolds) {
  EXPECT_EQ(
      Logged("info", [] { Logger().Info("a\nb\r\nc\x1b[2J", absl::string_view("\0\t", 2), "d"); }),
      Lines{"I worker gpu-3 a b  c [2J  d"});
}

TEST(Logging, AnUnknownLevelIsRefusedByName) {
  for (const char* level : {"", "loud", "INFO", "warn", "err", "trace", "critical"}) {
    EXPECT_STATUS(
        InitLogging("worker", level), absl::StatusCode::kInvalidArgument,
        std::string("log level is '") + level + "'; it can be debug, info, warning, error or off");
  }
}

}  // namespace
}  // namespace muster
