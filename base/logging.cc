#include "base/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json_string.h"

namespace muster {
namespace {

struct Level {
  absl::string_view name;
  spdlog::level::level_enum level;
};
constexpr Level kLevels[] = {{"debug", spdlog::level::debug},
                             {"info", spdlog::level::info},
                             {"warning", spdlog::level::warn},
                             {"error", spdlog::level::err},
                             {"off", spdlog::level::off}};

const Level& LevelOf(LogLevel level) { return kLevels[static_cast<size_t>(level)]; }

// Set by InitLogging.
struct Process {
  bool json = false;
  std::string role;
  std::string worker;
};
Process& ThisProcess() {
  static auto* const process = new Process;
  return *process;
}

std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, ' ');
  return text;
}

std::string TextLine(const LogSubject& subject, absl::string_view message) {
  std::vector<std::string> about;
  if (!subject.source.empty()) about.emplace_back(subject.source);
  if (subject.replica) about.push_back(absl::StrCat("replica ", subject.replica->value()));
  if (subject.epoch) about.push_back(absl::StrCat("epoch ", subject.epoch->value()));
  if (subject.rank) about.push_back(absl::StrCat("rank ", subject.rank->value()));
  if (!subject.request_id.empty()) about.push_back(absl::StrCat("request ", subject.request_id));
  if (!subject.trace_id.empty()) about.push_back(absl::StrCat("trace ", subject.trace_id));
  if (about.empty()) return OneLine(std::string(message));
  return OneLine(absl::StrCat("[", absl::StrJoin(about, " "), "] ", message));
}

void AddText(absl::string_view name, absl::string_view text, std::string* line) {
  if (text.empty()) return;
  absl::StrAppend(line, ",\"", name, "\":");
  AppendJsonString(text, line);
}

template <typename Id>
void AddNumber(absl::string_view name, const std::optional<Id>& id, std::string* line) {
  if (id.has_value()) absl::StrAppend(line, ",\"", name, "\":", id->value());
}

std::string JsonLine(LogLevel level, const LogSubject& subject, absl::string_view message) {
  const Process& process = ThisProcess();
  std::string line = absl::StrCat(
      "{\"time\":\"", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(), absl::UTCTimeZone()),
      "\"");
  AddText("level", LevelOf(level).name, &line);
  AddText("role", process.role, &line);
  AddText("worker", process.worker.empty() ? subject.worker : process.worker, &line);
  AddText("source", subject.source, &line);
  AddNumber("replica", subject.replica, &line);
  AddNumber("epoch", subject.epoch, &line);
  AddNumber("rank", subject.rank, &line);
  AddText("request_id", subject.request_id, &line);
  AddText("trace_id", subject.trace_id, &line);
  line.append(",\"message\":");
  AppendJsonString(message, &line);
  line.push_back('}');
  return line;
}

absl::Status CheckOptions(const LogOptions& options) {
  const bool known = std::any_of(std::begin(kLevels), std::end(kLevels),
                                 [&](const Level& it) { return it.name == options.level; });
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat(
        "log level is '", options.level, "'; it can be debug, info, warning, error or off"));
  }
  if (options.format == "text" || options.format == "json") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("log format is '", options.format, "'; it can be text or json"));
}

}  // namespace

absl::Status InitLogging(const LogOptions& options) {
  if (const absl::Status status = CheckOptions(options); !status.ok()) return status;
  const bool json = options.format == "json";
  ThisProcess() = {.json = json, .role = options.role, .worker = options.worker};
  auto logger = std::make_shared<spdlog::logger>(
      options.worker.empty() ? options.role : absl::StrCat(options.role, " ", options.worker),
      std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(std::find_if(std::begin(kLevels), std::end(kLevels), [&](const Level& it) {
                      return it.name == options.level;
                    })->level);
  logger->set_pattern(json ? "%v" : "%Y-%m-%dT%H:%M:%S.%e %L %n %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

bool LogsAt(LogLevel level) {
  return spdlog::default_logger_raw()->should_log(LevelOf(level).level);
}

void LogLine(LogLevel level, const LogSubject& subject, absl::string_view message) {
  if (!LogsAt(level)) return;
  spdlog::default_logger_raw()->log(
      LevelOf(level).level, "{}",
      ThisProcess().json ? JsonLine(level, subject, message) : TextLine(subject, message));
}

void LogFailure(absl::string_view program, const absl::Status& status) {
  const std::string line = ThisProcess().json ? JsonLine(LogLevel::kError, {}, status.message())
                                              : absl::StrCat(program, ": ", status.message());
  std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace muster
