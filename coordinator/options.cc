#include "coordinator/options.h"

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/flags.h"
#include "base/status_macros.h"
#include "base/tls_flag.h"

namespace muster {
namespace {

constexpr char kDescription[] =
    "Musters workers into replicas of a model. Workers enlist with it; as soon as there are\n"
    "enough, it gives every worker a rank and leads all ranks through loading, warm-up and\n"
    "capture until they serve. When a worker is lost, it forms the replica again from those\n"
    "that are left. It is never on the path of a request. It ends on SIGTERM or SIGINT.";
constexpr char kFooter[] =
    "\nExample: a replica of two workers, whose KV cache is split over both\n"
    "  muster-coordinator --cp 2\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w0 --model DIR --threads 1\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w1 --model DIR --threads 1\n"
    "  musterctl status --coordinator 127.0.0.1:7600\n"
    "`musterctl up --model DIR` starts coordinator and workers at once.\n"
    "Exit status: 0 after an orderly end, 1 after a failure, 2 when a flag is wrong.";

constexpr int kMaxAxis = 1024;
constexpr char kAuto[] = "auto";

// What is text on the command line and something else in CoordinatorOptions.
struct Texts {
  std::string listen;
  std::string lease;
  std::string phase_timeout;
  std::string replicas = "1";
  std::string resize_range = kAuto;
};

std::string CheckReplicas(const std::string& value) {
  int number = 0;
  const bool fits = absl::SimpleAtoi(value, &number) && number >= 1 && number <= kMaxAxis;
  if (fits || value == kAuto) return "";
  return FlagRefusal(value, absl::StrCat("auto, or a whole number from 1 to ", kMaxAxis));
}

void AddSizeFlags(CLI::App& app, CoordinatorOptions& options) {
  const struct {
    const char* flag;
    int& size;
    const char* help;
  } sizes[] = {
      {"--tp", options.config.tp, "Tensor parallel: ranks over which attention heads are split"},
      {"--cp", options.config.cp, "Context parallel: ranks over which the KV cache is split"},
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
      ->check(AddressToListen())
      ->capture_default_str();
  AddSizeFlags(app, options);
  app.add_option(
         "--replicas", texts.replicas,
         "Independent copies of the model, each on tp x cp workers of one domain. auto: one "
         "in each domain that has enough workers, as many as there are")
      ->type_name("N")
      ->check(CLI::Validator(CheckReplicas, ""))
      ->capture_default_str();
  app.add_option("--resize-range", texts.resize_range,
                 "Sizes of --cp that a replica can change to while it serves: each worker leaves "
                 "room for the weights of two of them at once. auto: half to double of --cp")
      ->type_name("MIN:MAX")
      ->capture_default_str();
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

void AddOwnFlags(CLI::App& app, CoordinatorOptions& options) {
  AddAdminFlag(app, options.admin_listen);
  AddTlsFlag(app, options.tls);
  app.add_flag("--insecure", options.insecure,
               "Allow plaintext beyond this machine; without it or --tls, --listen must be a "
               "loopback address");
  app.add_option("--port-file", options.port_file,
                 "Write HOST:PORT to this file once this coordinator listens")
      ->type_name("PATH")
      ->check(PathOf("file"));
  AddProcessFlags(app, options.log_level, options.log_format, options.die_with_parent);
}

absl::StatusOr<CpRange> ParseRange(const std::string& text, int cp) {
  if (text == kAuto) return DefaultCpRange(cp);
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  CpRange range;
  const bool fits = parts.size() == 2 && absl::SimpleAtoi(parts[0], &range.min) &&
                    absl::SimpleAtoi(parts[1], &range.max) && range.min >= 1 && range.min <= cp &&
                    range.max >= cp && range.max <= kMaxAxis;
  if (fits) return range;
  return absl::InvalidArgumentError(
      absl::StrCat("--resize-range is '", text, "'; it can be auto, or MIN:MAX with MIN from 1 to ",
                   cp, " (--cp) and MAX from ", cp, " to ", kMaxAxis));
}

absl::Status Finish(const Texts& texts, CoordinatorOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(options.listen, ParseListenAddress(texts.listen));
  if (options.tls.empty()) {
    MUSTER_RETURN_IF_ERROR(CheckPlaintext("--listen", texts.listen, options.insecure));
  } else {
    MUSTER_RETURN_IF_ERROR(
        ReadTlsFlag(options.tls, TlsRole::kCoordinator, options.insecure).status());
  }
  options.replica_per_domain = texts.replicas == kAuto;
  if (!options.replica_per_domain) (void)absl::SimpleAtoi(texts.replicas, &options.config.replicas);
  absl::ParseDuration(texts.lease, &options.lease);
  absl::ParseDuration(texts.phase_timeout, &options.phase_timeout);
  MUSTER_ASSIGN_OR_RETURN(options.resize_range, ParseRange(texts.resize_range, options.config.cp));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<CoordinatorOptions>> ParseOptions(int argc, const char* const* argv,
                                                               std::ostream& out) {
  CLI::App app(kDescription, "muster-coordinator");
  app.footer(kFooter);
  CoordinatorOptions options;
  Texts texts{.listen = options.listen.ToString(),
              .lease = absl::FormatDuration(options.lease),
              .phase_timeout = absl::FormatDuration(options.phase_timeout)};
  AddFleetFlags(app, options, texts);
  AddOwnFlags(app, options);
  MUSTER_ASSIGN_OR_RETURN(const bool runs,
                          ParseFlags(app, argc, argv, out, [&] { return Finish(texts, options); }));
  if (!runs) return std::optional<CoordinatorOptions>();
  return std::optional<CoordinatorOptions>(std::move(options));
}

}  // namespace muster
