#include "base/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

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

} // namespace

absl::Status InitLogging(absl::string_view role, absl::string_view level) {
  const spdlog::level::level_enum parsed =
      spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("log level is '", level,
                     "'; it can be debug, info, warning, error or off"));
  }
  auto logger = std::make_shared<spdlog::logger>(
      std::string(role), std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(parsed);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogLine(LogLevel level, absl::string_view context,
             absl::string_view message) {
  spdlog::logger *logger = spdlog::default_logger_raw();
  if (context.empty()) {
    logger->log(ToSpdlog(level), "{}", std::string(message));
  } else {
    logger->log(ToSpdlog(level), "[{}] {}", std::string(context),
                std::string(message));
  }
}

} // namespace muster
