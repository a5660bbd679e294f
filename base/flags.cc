#include "base/flags.h"

#include <algorithm>
#include <cstdlib>
#include <istream>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/flag_file.h"
#include "base/listen_address.h"
#include "base/status_macros.h"
#include "base/yaml_string.h"

namespace muster {
namespace {

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return std::string(absl::StripAsciiWhitespace(text));
}

constexpr char kConfigVariable[] = "MUSTER_CONFIG";
constexpr char kPrintConfig[] = "--print-config";

// The file that --config names; empty for none.
std::string FileOf(const CLI::App& app) {
  const CLI::Option* config = app.get_config_ptr();
  return config->count() == 0 ? "" : config->as<std::string>();
}

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

// What is read of the file that --config names, and where in it each flag stands. CLI11 itself
// reads another language.
class FlagFile : public CLI::ConfigBase {
 public:
  explicit FlagFile(const CLI::App& app) : app_(app) {}

  // Without the flags that the environment holds, since it comes first.
  std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
    const auto entries = ReadFlagFile(in);
    if (!entries.ok()) Refuse(absl::StrCat(", ", entries.status().message()));
    std::vector<CLI::ConfigItem> items;
    for (const FlagFileEntry& entry : *entries) {
      const CLI::Option* option = app_.get_option_no_throw("--" + entry.name);
      if (option == nullptr || !option->get_configurable()) {
        Refuse(absl::StrCat(", line ", entry.line, ": '", entry.name, "' is no flag"));
      }
      if (!lines_.try_emplace(option, entry.line).second) {
        Refuse(absl::StrCat(", line ", entry.line, ": '", entry.name, "' stands there twice"));
      }
      if (!FromEnvironment(option->get_envname()).empty()) continue;
      CLI::ConfigItem& item = items.emplace_back();
      item.name = entry.name;
      item.inputs = {entry.value};
    }
    return items;
  }

  // CLI11 would take an empty value for "true".
  std::string to_flag(const CLI::ConfigItem& item) const override {
    const std::string refusal = CheckTrueOrFalse(item.inputs[0]);
    if (!refusal.empty()) throw CLI::ValidationError("--" + item.name, refusal);
    return item.inputs[0];
  }

  // Nothing where the file does not name it.
  std::optional<int> LineOf(const CLI::Option& option) const {
    const auto it = lines_.find(&option);
    return it == lines_.end() ? std::nullopt : std::optional<int>(it->second);
  }

 private:
  [[noreturn]] void Refuse(absl::string_view what) const {
    throw CLI::ValidationError("--config",
                               absl::StrCat("'", FileOf(app_), "'", what, " (", app_.get_name(),
                                            " --help explains every flag)"));
  }

  const CLI::App& app_;
  // CLI11 reads through a pointer to const.
  mutable std::map<const CLI::Option*, int> lines_;
};

// "--kv-memory" is MUSTER_KV_MEMORY.
void TakeFromEnvironmentAndFile(CLI::App& app, const std::shared_ptr<FlagFile>& file) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames()[0] == "help") continue;
    const bool takes_no_value = option->get_expected_min() == 0;
    if (takes_no_value) option->check(CLI::Validator(CheckTrueOrFalse, ""));
    std::string name = absl::AsciiStrToUpper(option->get_lnames()[0]);
    std::replace(name.begin(), name.end(), '-', '_');
    option->envname(absl::StrCat("MUSTER_", name));
  }
  app.set_config("--config", "", "Take flags from this file: `name: value` in YAML, or JSON")
      ->type_name("FILE")
      ->take_last()
      ->envname(kConfigVariable);
  app.config_formatter(file);
  app.add_flag(kPrintConfig)
      ->description("Print what every flag is and where that comes from, as a file for --config")
      ->configurable(false);
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
    return absl::InvalidArgumentError(
        OneLine(absl::StrCat("--config: ", FlagRefusal(FileOf(app), "a file that can be read"))));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(OneLine(error.what()), " (", app.get_name(), " --help explains every flag)"));
}

// True where the command line names the flag: CLI11 takes no abbreviations, and no value that
// begins like a flag.
bool IsOnCommandLine(const std::string& flag, int argc, const char* const* argv) {
  return std::any_of(argv + 1, argv + argc, [&flag](absl::string_view word) {
    return absl::ConsumePrefix(&word, flag) && (word.empty() || word[0] == '=');
  });
}

struct PrintedFlag {
  std::string text;  // "name: value", or a comment
  std::string origin;
};

// A number stays one: whoever reads it back takes the text.
std::string AsYaml(const std::string& value) {
  uint64_t number = 0;
  const bool decimal = absl::SimpleAtoi(value, &number) && absl::StrCat(number) == value;
  return decimal ? value : YamlString(value);
}

PrintedFlag Print(const CLI::Option& option, bool on_command_line, std::optional<int> line) {
  const std::string name = option.get_lnames()[0];
  const bool is_switch = option.get_expected_min() == 0;
  if (option.count() == 0) {
    const std::string preset = is_switch ? "false" : option.get_default_str();
    if (preset.empty()) return {absl::StrCat("# ", name, ":"), "not set"};
    return {absl::StrCat(name, ": ", is_switch ? preset : AsYaml(preset)), "default"};
  }
  const std::string origin = on_command_line     ? "command line"
                             : !line.has_value() ? option.get_envname()
                             : FromEnvironment(option.get_envname()).empty()
                                 ? absl::StrCat("file, line ", *line)
                                 : option.get_envname();
  const std::string value =
      is_switch ? (option.as<bool>() ? "true" : "false") : AsYaml(option.as<std::string>());
  return {absl::StrCat(name, ": ", value), origin};
}

void PrintConfig(const CLI::App& app, const FlagFile& file, int argc, const char* const* argv,
                 std::ostream& out) {
  std::vector<PrintedFlag> flags;
  size_t width = 0;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_configurable()) continue;
    flags.push_back(Print(*option, IsOnCommandLine("--" + option->get_lnames()[0], argc, argv),
                          file.LineOf(*option)));
    width = std::max(width, flags.back().text.size());
  }
  out << "# " << app.get_name() << ": the command line comes before the environment, that before "
      << "the file, that before the default.\n";
  if (!FileOf(app).empty()) out << "# file: " << YamlString(FileOf(app)) << "\n";
  for (const auto& [text, origin] : flags) {
    out << text << std::string(width - text.size(), ' ') << "  # " << origin << "\n";
  }
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

void AddProcessFlags(CLI::App& app, std::string& log_level, std::string& log_format,
                     bool& die_with_parent) {
  app.add_option("--log-level", log_level,
                 "Least that is logged on stderr: debug, info, warning, error or off")
      ->type_name("LEVEL")
      ->check(OneOf({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  app.add_option("--log-format", log_format,
                 "How a line of the log is written: text, for people, or json, an object")
      ->type_name("FORMAT")
      ->check(OneOf({"text", "json"}))
      ->capture_default_str();
  app.add_flag("--die-with-parent", die_with_parent,
               "End at once when the process that started this one ends, however it ends");
}

void AddAdminFlag(CLI::App& app, std::string& address) {
  app.add_option("--admin-listen", address,
                 "Where to answer probes, scrapes and browsers by plain HTTP, read-only: /livez, "
                 "/readyz, /startupz, /metrics, /statusz; port 0 takes any free one")
      ->type_name("HOST:PORT")
      ->check(AddressToListen());
}

absl::Status CheckPlaintext(absl::string_view flag, const std::string& address, bool insecure) {
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress parsed, ParseListenAddress(address));
  if (insecure || IsLoopback(parsed)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": '", address,
                   "' is not a loopback address, and what travels is not encrypted; "
                   "--tls DIR encrypts it, --insecure allows it"));
}

absl::StatusOr<bool> ParseFlags(CLI::App& app, int argc, const char* const* argv, std::ostream& out,
                                absl::FunctionRef<absl::Status()> check) {
  const auto file = std::make_shared<FlagFile>(app);
  TakeFromEnvironmentAndFile(app, file);
  try {
    app.parse(Words(argc, argv));
  } catch (const CLI::ParseError& error) {
    const bool help_asked = app.get_help_ptr()->count() > 0;
    if (!help_asked) return Refusal(app, error);
    out << app.help();
    return false;
  }
  MUSTER_RETURN_IF_ERROR(check());
  if (app.count(kPrintConfig) == 0) return true;
  PrintConfig(app, *file, argc, argv, out);
  return false;
}

}  // namespace muster
