#include "coordinator/options.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr char kDescription[] =
    "Musters workers into replicas of a model. Workers enlist with it; as soon as there are "
    "enough,\n"
    "it gives every worker a rank and leads all ranks through loading, warm-up and capture until\n"
    "they serve. When a worker is lost, it forms the replica again from those that are left. It "
    "is\n"
    "never on the path of a request. It ends on SIGTERM or SIGINT.";
constexpr char kFooter[] =
    "\nExample: a replica of two workers, whose KV cache is split over both\n"
    "  muster-coordinator --cp 2\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w0 --model DIR --threads 1\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w1 --model DIR --threads 1\n"
    "  musterctl status --coordinator 127.0.0.1:7600\n"
    "`musterctl up --model DIR` starts coordinator and workers at once.\n"
    "Exit status: 0 after an orderly end, 1 after a failure, 2 when a flag is wrong.";

constexpr int kMaxAxis = 1024;

// What CLI11 writes after "--flag: ".
std::string Refusal(const std::string& value, absl::string_view wanted) {
  return absl::StrCat("'", value, "' is not ", wanted);
}

std::string CheckListen(const std::string& value) {
  if (ParseListenAddress(value).ok()) return "";
  return Refusal(value, "HOST:PORT with a port from 0 (any free one) to 65535");
}

std::string CheckNotEmpty(const std::string& value) {
  return value.empty() ? Refusal(value, "the path of a file") : "";
}

CLI::Validator OneOf(std::vector<std::string> choices) {
  return CLI::Validator(
      [choices = std::move(choices)](const std::string& value) {
        if (std::find(choices.begin(), choices.end(), value) != choices.end()) return std::string();
        return Refusal(value, absl::StrCat("one of ", absl::StrJoin(choices, ", ")));
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
        return Refusal(value, absl::StrCat("a whole number from ", least, " to ", most));
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
        return Refusal(value, absl::StrCat("a time from ", absl::FormatDuration(least), " to ",
                                           absl::FormatDuration(most), ", such as 1500ms or 30s"));
      },
      "");
}

// What is text on the command line and something else in CoordinatorOptions.
struct Texts {
  std::string listen;
  std::string lease;
  std::string phase_timeout;
};

void AddSizeFlags(CLI::App& app, CoordinatorOptions& options) {
  const struct {
    const char* flag;
    int& size;
    const char* help;
  } sizes[] = {
      {"--tp", options.config.tp, "Tensor parallel: ranks over which attention heads are split"},
      {"--cp", options.config.cp, "Context parallel: ranks over which the KV cache is split"},
      {"--replicas", options.config.replicas,
       "Independent copies of the model, each on tp x cp workers"},
  };
  for (const auto& [flag, size, help] : sizes) {
    app.add_option(flag, size, help)
        ->type_name("N")
        ->check(WholeNumber(1, kMaxAxis))
        ->capture_default_str();
  }
}

void AddFleetFlags(CLI::App& app, CoordinatorOptions& options, Texts& texts) {
  app.add_option("--listen", texts.listen, "Where to listen; port 0 takes any free one")
      ->type_name("HOST:PORT")
      ->check(CLI::Validator(CheckListen, ""))
      ->capture_default_str();
  AddSizeFlags(app, options);
  app.add_option("--lease", texts.lease,
                 "Longest silence of a worker before it counts as lost; it sends a heartbeat five "
                 "times as often. One that dies is noticed at once")
      ->type_name("TIME")
      ->check(DurationBetween(absl::Milliseconds(100), absl::Minutes(10)))
      ->capture_default_str();
  app.add_option("--phase-timeout", texts.phase_timeout,
                 "Longest time that a rank may take to become part of a replica without getting on")
      ->type_name("TIME")
      ->check(DurationBetween(absl::Seconds(1), absl::Minutes(10)))
      ->capture_default_str();
}

void AddProcessFlags(CLI::App& app, CoordinatorOptions& options) {
  app.add_flag("--insecure", options.insecure,
               "Allow plaintext beyond this machine; without it, --listen must be a loopback "
               "address");
  app.add_option("--port-file", options.port_file,
                 "Write HOST:PORT to this file once this coordinator listens")
      ->type_name("PATH")
      ->check(CLI::Validator(CheckNotEmpty, ""));
  app.add_option("--log-level", options.log_level,
                 "Least that is logged on stderr: debug, info, warning, error or off")
      ->type_name("LEVEL")
      ->check(OneOf({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--die-with-parent", options.die_with_parent,
               "End at once when the process that started this one ends, however it ends");
}

absl::StatusOr<std::optional<CoordinatorOptions>> Finish(CoordinatorOptions options,
                                                         const Texts& texts) {
  MUSTER_ASSIGN_OR_RETURN(options.listen, ParseListenAddress(texts.listen));
  if (!options.insecure && !IsLoopback(options.listen)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen: '", texts.listen,
                     "' is not a loopback address, and what travels is not encrypted; "
                     "--insecure allows it"));
  }
  absl::ParseDuration(texts.lease, &options.lease);
  absl::ParseDuration(texts.phase_timeout, &options.phase_timeout);
  return std::optional<CoordinatorOptions>(std::move(options));
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return std::string(absl::StripAsciiWhitespace(text));
}

}  // namespace

absl::StatusOr<std::optional<CoordinatorOptions>> ParseOptions(int argc, const char* const* argv,
                                                               std::ostream& help) {
  CLI::App app(kDescription, "muster-coordinator");
  app.footer(kFooter);
  CoordinatorOptions options;
  Texts texts{.listen = options.listen.ToString(),
              .lease = absl::FormatDuration(options.lease),
              .phase_timeout = absl::FormatDuration(options.phase_timeout)};
  AddFleetFlags(app, options, texts);
  AddProcessFlags(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    help << app.help();
    return std::optional<CoordinatorOptions>();
  } catch (const CLI::ValidationError& error) {
    return absl::InvalidArgumentError(OneLine(error.what()));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(OneLine(error.what()), " (muster-coordinator --help explains every flag)"));
  }
  return Finish(std::move(options), texts);
}

}  // namespace muster
