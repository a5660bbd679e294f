#include "base/flags.h"

#include <algorithm>
#include <ostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/listen_address.h"
#include "base/status_macros.h"

namespace muster {
namespace {

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return std::string(absl::StripAsciiWhitespace(text));
}

// "--kv-memory" is MUSTER_KV_MEMORY.
void TakeFromEnvironmentAndFile(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames()[0] == "help") continue;
    std::string name = absl::AsciiStrToUpper(option->get_lnames()[0]);
    std::replace(name.begin(), name.end(), '-', '_');
    option->envname(absl::StrCat("MUSTER_", name));
  }
  app.set_config("--config", "", "Take flags from this file, one `name = value` a line")
      ->type_name("FILE")
      ->envname("MUSTER_CONFIG");
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace

std::string FlagRefusal(absl::string_view value, absl::string_view wanted) {
  return absl::StrCat("'", value, "' is not ", wanted);
}

CLI::Validator OneOf(std::vector<std::string> choices) {
  return CLI::Validator(
      [choices = std::move(choices)](const std::string& value) {
        if (std::find(choices.begin(), choices.end(), value) != choices.end()) return std::string();
        return FlagRefusal(value, absl::StrCat("one of ", absl::StrJoin(choices, ", ")));
      },
      "");
}

CLI::Validator WholeNumber(int least, int most) {
  return CLI::Validator(
      [least, most](const std::string& value) {
        int number = 0;
        if (absl::SimpleAtoi(value, &number) && number >= least && number <= most) {
          return std::string();
        }
        return FlagRefusal(value, absl::StrCat("a whole number from ", least, " to ", most));
      },
      "");
}

CLI::Validator DurationBetween(absl::Duration least, absl::Duration most) {
  return CLI::Validator(
      [least, most](const std::string& value) {
        absl::Duration duration;
        if (absl::ParseDuration(value, &duration) && duration >= least && duration <= most) {
          return std::string();
        }
        return FlagRefusal(value,
                           absl::StrCat("a time from ", absl::FormatDuration(least), " to ",
                                        absl::FormatDuration(most), ", such as 1500ms or 30s"));
      },
      "");
}

CLI::Validator PathOf(const std::string& what) {
  return CLI::Validator(
      [what](const std::string& value) {
        return value.empty() ? FlagRefusal(value, absl::StrCat("the path of a ", what))
                             : std::string();
      },
      "");
}

CLI::Validator AddressToListen() {
  return CLI::Validator(
      [](const std::string& value) {
        if (ParseListenAddress(value).ok()) return std::string();
        return FlagRefusal(value, "HOST:PORT with a port from 0 (any free one) to 65535");
      },
      "");
}

void AddProcessFlags(CLI::App& app, std::string& log_level, bool& die_with_parent) {
  app.add_option("--log-level", log_level,
                 "Least that is logged on stderr: debug, info, warning, error or off")
      ->type_name("LEVEL")
      ->check(OneOf({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--die-with-parent", die_with_parent,
               "End at once when the process that started this one ends, however it ends");
}

absl::Status CheckPlaintext(absl::string_view flag, const std::string& address, bool insecure) {
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress parsed, ParseListenAddress(address));
  if (insecure || IsLoopback(parsed)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": '", address,
                   "' is not a loopback address, and what travels is not encrypted; "
                   "--insecure allows it"));
}

absl::StatusOr<bool> ParseFlags(CLI::App& app, int argc, const char* const* argv,
                                std::ostream& help) {
  TakeFromEnvironmentAndFile(app);
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::CallForHelp&) {
    help << app.help();
    return false;
  } catch (const CLI::ValidationError& error) {
    return absl::InvalidArgumentError(OneLine(error.what()));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(OneLine(error.what()), " (", app.get_name(), " --help explains every flag)"));
  }
}

}  // namespace muster
