#include "base/flags.h"

#include <algorithm>
#include <cstdlib>
#include <istream>
#include <memory>
#include <ostream>
#include <set>
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

constexpr char kConfigVariable[] = "MUSTER_CONFIG";

// Empty when the variable is not set: both are none.
std::string FromEnvironment(const std::string& variable) {
  const char* value = std::getenv(variable.c_str());
  return value == nullptr ? "" : value;
}

std::string CheckTrueOrFalse(const std::string& value) {
  static const std::set<std::string> kValues = {"true",  "yes", "on",  "1",
                                                "false", "no",  "off", "0"};
  if (kValues.count(absl::AsciiStrToLower(value)) > 0) return "";
  return FlagRefusal(value, "true or false");
}

std::string WithoutQuotes(absl::string_view text) {
  const bool quoted = text.size() >= 2 && text.front() == text.back() &&
                      (text.front() == '"' || text.front() == '\'');
  return std::string(quoted ? text.substr(1, text.size() - 2) : text);
}

// A file of one `name = value` a line; lines that begin with '#' or ';' are comments. What CLI11
// reads itself is another language: it splits values at spaces and commas, and has sections.
class FlagFile : public CLI::ConfigBase {
 public:
  explicit FlagFile(const CLI::App& app) : app_(app) {}

  // Without the flags that the environment holds, since it comes first.
  std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
    std::vector<CLI::ConfigItem> items;
    std::set<std::string> names;
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      const absl::string_view text = absl::StripAsciiWhitespace(line);
      if (text.empty() || text[0] == '#' || text[0] == ';') continue;
      CLI::ConfigItem item = Item(text);
      const CLI::Option* option = app_.get_option_no_throw("--" + item.name);
      if (item.inputs.empty() || option == nullptr || !option->get_configurable()) {
        Refuse(text, number, "`name = value` for a flag");
      }
      if (!names.insert(item.name).second) Refuse(text, number, "the only line for this flag");
      if (FromEnvironment(option->get_envname()).empty()) items.push_back(std::move(item));
    }
    return items;
  }

  // CLI11 would take an empty value for "true".
  std::string to_flag(const CLI::ConfigItem& item) const override {
    const std::string refusal = CheckTrueOrFalse(item.inputs[0]);
    if (!refusal.empty()) throw CLI::ValidationError("--" + item.name, refusal);
    return item.inputs[0];
  }

 private:
  // Without inputs when `text` has no '='.
  static CLI::ConfigItem Item(absl::string_view text) {
    CLI::ConfigItem item;
    const size_t equals = text.find('=');
    item.name = std::string(absl::StripAsciiWhitespace(text.substr(0, equals)));
    if (equals != absl::string_view::npos) {
      item.inputs = {WithoutQuotes(absl::StripAsciiWhitespace(text.substr(equals + 1)))};
    }
    return item;
  }

  [[noreturn]] void Refuse(absl::string_view text, int number, absl::string_view wanted) const {
    throw CLI::ValidationError(
        "--config", absl::StrCat("'", text, "' (line ", number, ") is not ", wanted, " (",
                                 app_.get_name(), " --help explains every flag)"));
  }

  const CLI::App& app_;
};

// "--kv-memory" is MUSTER_KV_MEMORY.
void TakeFromEnvironmentAndFile(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames()[0] == "help") continue;
    const bool takes_no_value = option->get_expected_min() == 0;
    if (takes_no_value) option->check(CLI::Validator(CheckTrueOrFalse, ""));
    std::string name = absl::AsciiStrToUpper(option->get_lnames()[0]);
    std::replace(name.begin(), name.end(), '-', '_');
    option->envname(absl::StrCat("MUSTER_", name));
  }
  app.set_config("--config", "", "Take flags from this file, one `name = value` a line")
      ->type_name("FILE")
      ->take_last()
      ->envname(kConfigVariable);
  app.config_formatter(std::make_shared<FlagFile>(app));
}

// Last word first, as CLI11 wants them. It reads the file before the environment, so the file that
// the environment names stands among the words, before all others.
std::vector<std::string> Words(int argc, const char* const* argv) {
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i) words.emplace_back(argv[i]);
  const std::string file = FromEnvironment(kConfigVariable);
  if (!file.empty()) words.push_back("--config=" + file);
  return words;
}

absl::Status Refusal(const CLI::App& app, const CLI::ParseError& error) {
  if (dynamic_cast<const CLI::ValidationError*>(&error) != nullptr) {
    return absl::InvalidArgumentError(OneLine(error.what()));
  }
  if (dynamic_cast<const CLI::FileError*>(&error) != nullptr) {
    const auto file = app.get_config_ptr()->as<std::string>();
    return absl::InvalidArgumentError(
        OneLine(absl::StrCat("--config: ", FlagRefusal(file, "a file that can be read"))));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(OneLine(error.what()), " (", app.get_name(), " --help explains every flag)"));
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
    app.parse(Words(argc, argv));
    return true;
  } catch (const CLI::ParseError& error) {
    const bool help_asked = app.get_help_ptr()->count() > 0;
    if (!help_asked) return Refusal(app, error);
    help << app.help();
    return false;
  }
}

}  // namespace muster
