// Logging: one line per event on stderr, by spdlog, with the process' role and,
// where they are known, epoch, rank and request.
#ifndef MUSTER_BASE_LOGGING_H_
#define MUSTER_BASE_LOGGING_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace muster {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogOptions {
  std::string role;             // "coordinator", "worker"
  std::string worker;           // its id; empty for others
  std::string level = "info";   // "debug", "info", "warning", "error" or "off"
  std::string format = "text";  // or "json"
};

// Call once, from main, before other threads write. In text, role and worker begin every line; in
// JSON a line is an object of time, level, role, worker, message and what is known of the subject.
absl::Status InitLogging(const LogOptions& options);

// What a line is about, as far as that is known. Texts may be of any bytes.
struct LogSubject {
  std::optional<ReplicaIndex> replica;
  std::optional<Epoch> epoch;
  std::optional<GlobalRank> rank;
  absl::string_view worker = {};      // of a coordinator's line; the text names it already
  absl::string_view request_id = {};  // as its client named it
  absl::string_view trace_id = {};    // 32 hexadecimal digits
  absl::string_view source = {};      // whose words these are, where they are not ours: "grpc"
};

// Whether a line of this level is written: it need not be put together otherwise.
bool LogsAt(LogLevel level);
// One line, written at once, whatever is in it: in text control characters become spaces, in JSON
// they are escaped, as are bytes that are no UTF-8.
void LogLine(LogLevel level, const LogSubject& subject, absl::string_view message);
// The last line of a process that fails, at every level: in text "PROGRAM: message", as a flag is
// refused.
void LogFailure(absl::string_view program, const absl::Status& status);

// Writes lines for one rank of one epoch (or for none, by default), or for a request there.
// Thread-safe; cheap to copy. What is not written costs no allocation.
class Logger {
 public:
  Logger() = default;
  Logger(ReplicaIndex replica, Epoch epoch, GlobalRank rank)
      : subject_{.replica = replica, .epoch = epoch, .rank = rank} {}
  // The texts of `subject` outlive it.
  explicit Logger(const LogSubject& subject) : subject_(subject) {}

  template <typename... Args>
  void Debug(const Args&... args) const {
    Write(LogLevel::kDebug, args...);
  }
  template <typename... Args>
  void Info(const Args&... args) const {
    Write(LogLevel::kInfo, args...);
  }
  template <typename... Args>
  void Warning(const Args&... args) const {
    Write(LogLevel::kWarning, args...);
  }
  template <typename... Args>
  void Error(const Args&... args) const {
    Write(LogLevel::kError, args...);
  }

 private:
  template <typename... Args>
  void Write(LogLevel level, const Args&... args) const {
    if (LogsAt(level)) LogLine(level, subject_, absl::StrCat(args...));
  }

  LogSubject subject_;
};

}  // namespace muster

#endif  // MUSTER_BASE_LOGGING_H_
