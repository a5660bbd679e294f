#include "base/logging.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Lines = std::vector<std::string>;

// What `write` logs, without the times that begin the lines.
template <typename Write>
Lines Logged(const char* level, Write write) {
  ::testing::internal::CaptureStderr();
  EXPECT_OK(InitLogging({.role = "worker", .worker = "gpu-3", .level = level}));
  write();
  Lines lines = absl::StrSplit(::testing::internal::GetCapturedStderr(), '\n', absl::SkipEmpty());
  for (std::string& line : lines) {
    const size_t space = line.find(' ');
    absl::Time time;
    EXPECT_TRUE(absl::ParseTime("%Y-%m-%dT%H:%M:%E3S", line.substr(0, space), &time, nullptr))
        << line;
    line.erase(0, space + 1);
  }
  EXPECT_OK(InitLogging({.role = "base_test"}));
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
        InitLogging({.role = "worker", .level = level}), absl::StatusCode::kInvalidArgument,
        std::string("log level is '") + level + "'; it can be debug, info, warning, error or off");
  }
}

TEST(Logging, AnUnknownFormatIsRefusedByName) {
  for (const char* format : {"", "JSON", "xml"}) {
    EXPECT_STATUS(InitLogging({.role = "worker", .format = format}),
                  absl::StatusCode::kInvalidArgument,
                  std::string("log format is '") + format + "'; it can be text or json");
  }
}

const LogSubject kRequest = {.replica = ReplicaIndex(1),
                             .epoch = Epoch(18),
                             .rank = GlobalRank(0),
                             .request_id = "r-7",
                             .trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"};

TEST(Logging, ALineOfARequestNamesItAndItsTrace) {
  EXPECT_EQ(Logged("info", [] { Logger(kRequest).Info("answered"); }),
            Lines{"I worker gpu-3 [replica 1 epoch 18 rank 0 request r-7 trace "
                  "4bf92f3577b34da6a3ce929d0e0e4736] answered"});
}

TEST(Logging, AnIdCannotBeginALineOfItsOwn) {
  EXPECT_EQ(Logged("info", [] { Logger({.request_id = "a\nE worker gpu-3 b"}).Info("answered"); }),
            Lines{"I worker gpu-3 [request a E worker gpu-3 b] answered"});
}

TEST(Logging, WhatIsNotWrittenIsNotPutTogether) {
  struct Costly {
    operator absl::AlphaNum() const {
      ADD_FAILURE() << "put together";
      return absl::AlphaNum(1);
    }
  };
  EXPECT_EQ(Logged("info", [] { Logger().Debug(Costly()); }), Lines());
}

// What `write` logs as JSON, the times taken out.
template <typename Write>
std::string LoggedAsJson(const LogOptions& options, Write write) {
  ::testing::internal::CaptureStderr();
  EXPECT_OK(InitLogging(options));
  write();
  std::string lines = ::testing::internal::GetCapturedStderr();
  EXPECT_OK(InitLogging({.role = "base_test"}));
  const std::string kTime = "{\"time\":\"";
  constexpr size_t kTimeSize = absl::string_view("2026-11-30T03:25:26.123456Z").size();
  for (size_t at = 0; (at = lines.find(kTime, at)) != std::string::npos;) {
    at += kTime.size();
    absl::Time time;
    EXPECT_TRUE(
        absl::ParseTime("%Y-%m-%dT%H:%M:%E6SZ", lines.substr(at, kTimeSize), &time, nullptr))
        << lines;
    EXPECT_LT(absl::AbsDuration(absl::Now() - time), absl::Minutes(1));
    lines.erase(at, kTimeSize);
  }
  return lines;
}

TEST(Logging, AJsonLineIsAnObjectOfWhatIsKnown) {
  const std::string lines =
      LoggedAsJson({.role = "worker", .worker = "gpu-3", .format = "json"}, [] {
        Logger().Info("listening");
        Logger(kRequest).Warning("late");
      });
  EXPECT_EQ(lines,
            "{\"time\":\"\",\"level\":\"info\",\"role\":\"worker\",\"worker\":\"gpu-3\","
            "\"message\":\"listening\"}\n"
            "{\"time\":\"\",\"level\":\"warning\",\"role\":\"worker\",\"worker\":\"gpu-3\","
            "\"replica\":1,\"epoch\":18,\"rank\":0,\"request_id\":\"r-7\","
            "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"message\":\"late\"}\n");
}

TEST(Logging, ACoordinatorsJsonLineNamesTheWorkerThatItIsAbout) {
  EXPECT_EQ(LoggedAsJson({.role = "coordinator", .format = "json"},
                         [] { Logger({.worker = "w1", .source = "grpc"}).Error("gone"); }),
            "{\"time\":\"\",\"level\":\"error\",\"role\":\"coordinator\",\"worker\":\"w1\","
            "\"source\":\"grpc\",\"message\":\"gone\"}\n");
}

TEST(Logging, AJsonLineIsOneLineWhateverItsTextsHold) {
  const std::string lines = LoggedAsJson({.role = "r\"", .format = "json"}, [] {
    Logger({.request_id = "\xff\n\"}"}).Info("a\nb\xc3\x28 {} %v ", absl::string_view("\0", 1));
  });
  EXPECT_EQ(lines,
            "{\"time\":\"\",\"level\":\"info\",\"role\":\"r\\\"\","
            "\"request_id\":\"\\\\xFF\\n\\\"}\","
            "\"message\":\"a\\nb\\\\xC3( {} %v \\u0000\"}\n");
}

TEST(Logging, LinesOfManyThreadsDoNotMix) {
  const std::string lines = LoggedAsJson({.role = "worker", .format = "json"}, [] {
    const std::string text(10000, 'x');
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&text] {
        for (int line = 0; line < 25; ++line) Logger().Info(text);
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  const Lines all = absl::StrSplit(lines, '\n', absl::SkipEmpty());
  EXPECT_EQ(all.size(), 100u);
  for (const std::string& line : all) EXPECT_EQ(line, all[0]);
}

TEST(Logging, TheLastWordOfAProcessIsWrittenInItsFormatAtEveryLevel) {
  const auto fail = [] { LogFailure("muster-worker", absl::InternalError("no \"device\"")); };
  EXPECT_EQ(LoggedAsJson({.role = "worker", .level = "off", .format = "json"}, fail),
            "{\"time\":\"\",\"level\":\"error\",\"role\":\"worker\","
            "\"message\":\"no \\\"device\\\"\"}\n");
  EXPECT_EQ(LoggedAsJson({.role = "worker", .level = "off"}, fail),
            "muster-worker: no \"device\"\n");
}

}  // namespace
}  // namespace muster
