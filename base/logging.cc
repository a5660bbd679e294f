#include "base/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"

namespace muster {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

constexpr std::pair<absl::string_view, spdlog::level::level_enum> kLevels[] = {
    {"debug", spdlog::level::debug},
    {"info", spdlog::level::info},
    {"warning", spdlog::level::warn},
    {"error", spdlog::level::err},
    {"off", spdlog::level::off}};

std::string OneLine(absl::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, ' ');
  return line;
}

}  // namespace

absl::Status InitLogging(absl::string_view role, absl::string_view level) {
  const auto known = std::find_if(std::begin(kLevels), std::end(kLevels),
                                  [&](const auto& pair) { return pair.first == level; });
  if (known == std::end(kLevels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level is '", level, "'; it can be debug, info, warning, error or off"));
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(role),
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(known->second);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogLine(LogLevel level, absl::string_view context, absl::string_view message) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (context.empty()) {
    logger->log(ToSpdlog(level), "{}", OneLine(message));
  } else {
    logger->log(ToSpdlog(level), "[{}] {}", std::string(context), OneLine(message));
  }
}

}  // namespace muster
