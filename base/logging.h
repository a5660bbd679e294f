// Logging: one line per event on stderr, by spdlog, with the process' role and,
// where there is one, rank and epoch.
#ifndef MUSTER_BASE_LOGGING_H_
#define MUSTER_BASE_LOGGING_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace muster {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Call once, from main. `role` begins every line, e.g. "coordinator" or "worker
// gpu-3". `level` is one of "debug", "info", "warning", "error", "off".
absl::Status InitLogging(absl::string_view role, absl::string_view level);

// One line: control characters of `message` become spaces.
void LogLine(LogLevel level, absl::string_view context, absl::string_view message);

// Writes lines for one rank of one epoch (or for none, by default).
// Thread-safe; cheap to copy.
class Logger {
 public:
  Logger() = default;
  Logger(ReplicaIndex replica, Epoch epoch, GlobalRank rank)
      : context_(absl::StrCat("replica ", replica.value(), " epoch ", epoch.value(), " rank ",
                              rank.value())) {}

  template <typename... Args>
  void Debug(const Args&... args) const {
    LogLine(LogLevel::kDebug, context_, absl::StrCat(args...));
  }
  template <typename... Args>
  void Info(const Args&... args) const {
    LogLine(LogLevel::kInfo, context_, absl::StrCat(args...));
  }
  template <typename... Args>
  void Warning(const Args&... args) const {
    LogLine(LogLevel::kWarning, context_, absl::StrCat(args...));
  }
  template <typename... Args>
  void Error(const Args&... args) const {
    LogLine(LogLevel::kError, context_, absl::StrCat(args...));
  }

 private:
  std::string context_;
};

}  // namespace muster

#endif  // MUSTER_BASE_LOGGING_H_
