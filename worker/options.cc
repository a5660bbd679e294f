#include "worker/options.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/flags.h"
#include "base/listen_address.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "base/tls_flag.h"
#include "base/unix_socket.h"
#include "worker/device/cuda/device_choice.h"

namespace muster {
namespace {

constexpr char kDescription[] =
    "Owns one device and serves as one rank of a model. A worker enlists with a coordinator, "
    "which\n"
    "gives it a rank, has it load its shards of the weights, and makes it part of a replica; the\n"
    "worker of rank 0 then answers Forward requests. On SIGTERM it hands its rank over and ends; "
    "a\n"
    "second SIGTERM, or SIGINT, ends it at once.";
constexpr char kFooter[] =
    "\nExample: two workers of a coordinator at port 7600, started with --cp 2\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w0 --model DIR --threads 1\n"
    "  muster-worker --coordinator 127.0.0.1:7600 --worker-id w1 --model DIR --threads 1\n"
    "`musterctl up --model DIR` starts coordinator and workers at once.\n"
    "Exit status: 0 after an orderly end, 1 after a failure, 2 when a flag is wrong.";

constexpr int kMaxThreads = 1024;
constexpr int kMaxOrdinal = 1023;
constexpr int kMaxRanksPerDevice = 16;
constexpr double kLeastMemoryFraction = 0.05;
constexpr double kMostMemoryFraction = 0.98;
constexpr uint64_t kMinKvMemory = 4ull << 10;
constexpr uint64_t kMaxKvMemory = 16ull << 40;
constexpr absl::Duration kShortestLease = absl::Seconds(1);
constexpr absl::Duration kLongestLease = absl::Hours(24);
constexpr absl::Duration kLongestDrain = absl::Hours(1);
constexpr absl::Duration kShortestStall = absl::Milliseconds(100);

const std::vector<std::string> kPhases = {
    "load",           "warmup/probe",   "warmup/vote",      "warmup/allocate",    "warmup/exchange",
    "warmup/open",    "warmup/barrier", "warmup/self-test", "warmup/acknowledge", "warmup/relay",
    "capture/graphs", "capture/kv",     "capture/agree",    "activate/copy",      "activate/hold",
    "activate/switch"};

std::string CheckCoordinator(const std::string& value) {
  const auto address = ParseListenAddress(value);
  if (address.ok() && address->port > 0) return "";
  return FlagRefusal(value, "HOST:PORT with a port from 1 to 65535");
}

std::string CheckName(const std::string& value) {
  if (IsName(value)) return "";
  return FlagRefusal(value, "1 to 128 letters, digits, '.', '_' and '-'");
}

std::string CheckUnixSocket(const std::string& value) {
  const absl::Status status = CheckUnixPath(value);
  return status.ok() ? "" : absl::StrCat("'", value, "': ", status.message());
}

// Nothing when `text` is no size or more than 64 bits hold.
std::optional<uint64_t> ParseSize(absl::string_view text) {
  static constexpr std::pair<absl::string_view, int> kUnits[] = {
      {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}, {"B", 0}, {"", 0}};
  const auto digits = std::find_if_not(text.begin(), text.end(), absl::ascii_isdigit);
  const size_t length = static_cast<size_t>(digits - text.begin());
  uint64_t count = 0;
  if (!absl::SimpleAtoi(text.substr(0, length), &count)) return std::nullopt;
  const absl::string_view unit = absl::StripLeadingAsciiWhitespace(text.substr(length));
  for (const auto& [name, shift] : kUnits) {
    if (unit != name) continue;
    if (count > (UINT64_MAX >> shift)) return std::nullopt;
    return count << shift;
  }
  return std::nullopt;
}

std::string CheckKvMemory(const std::string& value) {
  if (value == "auto") return "";
  const std::optional<uint64_t> bytes = ParseSize(value);
  if (bytes.has_value() && *bytes >= kMinKvMemory && *bytes <= kMaxKvMemory) return "";
  return FlagRefusal(value, "auto or a size from 4KiB to 16TiB, such as 512MiB or 536870912");
}

std::string CheckDevice(const std::string& value) {
  return ParseDeviceChoice(value).ok() ? "" : FlagRefusal(value, kDeviceForms);
}

std::string CheckMemoryFraction(const std::string& value) {
  double fraction = 0;
  const bool number = absl::SimpleAtod(value, &fraction);
  if (number && fraction >= kLeastMemoryFraction && fraction <= kMostMemoryFraction) return "";
  return FlagRefusal(value, absl::StrCat("a number from ", kLeastMemoryFraction, " to ",
                                         kMostMemoryFraction, ", such as 0.9"));
}

std::optional<Fault> ParseFault(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('@', 1));
  if (std::find(kPhases.begin(), kPhases.end(), parts.second) == kPhases.end()) return std::nullopt;
  if (parts.first == "kill") return Fault{Fault::Action::kKill, parts.second};
  if (parts.first == "stop") return Fault{Fault::Action::kStop, parts.second};
  return std::nullopt;
}

std::string CheckFault(const std::string& value) {
  if (ParseFault(value).has_value()) return "";
  return FlagRefusal(
      value, absl::StrCat("kill@PHASE or stop@PHASE, PHASE one of ", absl::StrJoin(kPhases, ", ")));
}

// As a name can be.
std::string HostName() {
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') host = {"worker"};
  std::string name = std::string(host.data()).substr(0, 100);
  for (char& c : name) {
    if (!IsName({&c, 1})) c = '-';
  }
  return name;
}

int UsableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::clamp(CPU_COUNT(&set), 1, kMaxThreads);
}

// What is text on the command line and something else in WorkerOptions.
struct Texts {
  std::string kv_memory = "auto";
  std::string client_lease = "10m";
  std::string drain_timeout = "30s";
  std::string stall_timeout = "5s";
  std::string fault;
  int device_ordinal = 0;
  bool no_fusion = false;
  bool no_graphs = false;
};

void AddFleetFlags(CLI::App& app, WorkerOptions& options, Texts& texts) {
  app.add_option("--coordinator", options.coordinator, "Where the coordinator listens")
      ->required()
      ->type_name("HOST:PORT")
      ->check(CLI::Validator(CheckCoordinator, ""));
  app.add_option("--listen", options.listen,
                 "Where this worker's services listen; port 0 takes any free one")
      ->type_name("HOST:PORT")
      ->check(AddressToListen())
      ->capture_default_str();
  app.add_option("--unix-socket", options.unix_socket,
                 "Path of a Unix socket to listen on as well, for clients of this host; in a "
                 "directory of this user with mode 0700")
      ->type_name("PATH")
      ->check(CLI::Validator(CheckUnixSocket, ""));
  app.add_option(
         "--worker-id", options.worker_id,
         "Stable name within the fleet: with it, a restarted worker is known again (default: "
         "that of the certificate with --tls, else host name and process id)")
      ->type_name("ID")
      ->check(CLI::Validator(CheckName, ""));
  app.add_option("--domain", options.domain,
                 "Workers of one domain can open each other's memory, and a replica is formed of "
                 "such alone: name it after the host, the pod or the NVLink domain (default: the "
                 "host's name)")
      ->type_name("NAME")
      ->check(CLI::Validator(CheckName, ""));
  app.add_option("--client-lease", texts.client_lease,
                 "How long a client may be silent before its sequences are given back, e.g. 10m")
      ->type_name("DURATION")
      ->check(DurationBetween(kShortestLease, kLongestLease))
      ->capture_default_str();
  app.add_option("--drain-timeout", texts.drain_timeout,
                 "How long SIGTERM may take to hand the rank over and answer what is in flight, "
                 "e.g. 30s; 0s ends at once")
      ->type_name("DURATION")
      ->check(DurationBetween(absl::ZeroDuration(), kLongestDrain))
      ->capture_default_str();
  AddAdminFlag(app, options.admin_listen);
  app.add_option("--stall-timeout", texts.stall_timeout,
                 "How long no step may end while requests wait before this worker calls itself "
                 "NOT_SERVING; longer than the longest step")
      ->type_name("DURATION")
      ->check(DurationBetween(kShortestStall, kLongestDrain))
      ->capture_default_str();
  AddTlsFlag(app, options.tls);
  app.add_flag("--insecure", options.insecure,
               "Allow plaintext beyond this machine; without it or --tls, --listen and "
               "--coordinator must be loopback addresses");
}

void AddModelFlags(CLI::App& app, WorkerOptions& options, Texts& texts) {
  app.add_option("--model", options.model,
                 "Hugging Face directory: config.json and *.safetensors. The same for all workers")
      ->required()
      ->type_name("DIR")
      ->check(PathOf("directory"));
  app.add_option("--dtype", options.dtype,
                 "Type of weights and KV: auto (as the checkpoint is; on the CPU float32 for a "
                 "float16 one), float32, bfloat16 or, on CUDA, float16")
      ->type_name("TYPE")
      ->check(OneOf({"auto", "float32", "bfloat16", "float16"}))
      ->capture_default_str();
  app.add_option("--load-format", options.load_format,
                 "Where the weights come from: auto or safetensors (the files of --model) or dummy "
                 "(made up, alike on every topology: --model needs a config.json only)")
      ->type_name("FORMAT")
      ->check(OneOf({"auto", "safetensors", "dummy"}))
      ->capture_default_str();
  app.add_option("--kv-memory", texts.kv_memory,
                 "Memory for KV blocks of this rank, e.g. 2GiB, less when less is free; auto: "
                 "512MiB on the CPU, on a GPU what --memory-fraction leaves. The rank with the "
                 "least decides for its replica")
      ->type_name("SIZE")
      ->check(CLI::Validator(CheckKvMemory, ""))
      ->capture_default_str();
}

void AddDeviceFlags(CLI::App& app, WorkerOptions& options, Texts& texts) {
  app.add_option("--threads", options.threads,
                 "Threads that compute, by itself all processors that this process may use; with "
                 "several workers on one machine, give each its share")
      ->type_name("N")
      ->check(WholeNumber(1, kMaxThreads))
      ->capture_default_str();
  app.add_option(
         "--device", options.device,
         "What computes: auto (the first GPU, or the CPU where none can be used), cpu, cuda "
         "(the first GPU), cuda:ORDINAL or cuda:UUID (or its beginning)")
      ->type_name("DEVICE")
      ->check(CLI::Validator(CheckDevice, ""))
      ->capture_default_str();
  app.add_option("--device-ordinal", texts.device_ordinal, "Index of the device on its host")
      ->type_name("N")
      ->check(WholeNumber(0, kMaxOrdinal))
      ->capture_default_str();
  app.add_option("--memory-fraction", options.memory_fraction,
                 "Of a GPU's memory, what weights, workspaces, graphs and KV may take together; "
                 "nothing to the CPU")
      ->type_name("FRACTION")
      ->check(CLI::Validator(CheckMemoryFraction, ""))
      ->capture_default_str();
  app.add_option("--oversubscribe", options.oversubscribe,
                 "Ranks that share one GPU, for tests and small models: each takes its part of the "
                 "memory and of the multiprocessors. Start MPS, or they take turns")
      ->type_name("N")
      ->check(WholeNumber(1, kMaxRanksPerDevice))
      ->capture_default_str();
  app.add_flag("--no-fusion", texts.no_fusion,
               "Run all-reduce, residual and norm one after another, to compare with");
  app.add_flag("--no-graphs", texts.no_graphs, "Run every step eagerly, to compare with");
}

void AddOwnFlags(CLI::App& app, WorkerOptions& options, Texts& texts) {
  AddProcessFlags(app, options.log_level, options.log_format, options.die_with_parent);
  app.add_option(
         "--fault", texts.fault,
         "For tests: kill@PHASE or stop@PHASE sends SIGKILL or SIGSTOP to this process when "
         "it enters the phase, e.g. kill@warmup/exchange")
      ->type_name("SPEC")
      ->check(CLI::Validator(CheckFault, ""));
}

// The certificate says who this is: another name would be refused by the coordinator.
absl::Status TakeIdentity(WorkerOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(const TlsIdentity identity,
                          ReadTlsFlag(options.tls, TlsRole::kWorker, options.insecure));
  if (options.worker_id.empty()) options.worker_id = identity.id;
  if (options.worker_id == identity.id) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--worker-id: ", FlagRefusal(options.worker_id, "'"), identity.id,
                   "', to whom the certificate in '", options.tls,
                   "' was issued; leave the flag out, or take the "
                   "certificate of that worker"));
}

absl::Status CheckSecrecy(WorkerOptions& options) {
  if (!options.tls.empty()) return TakeIdentity(options);
  for (const auto& [flag, address] :
       {std::pair("--listen", options.listen), std::pair("--coordinator", options.coordinator)}) {
    MUSTER_RETURN_IF_ERROR(CheckPlaintext(flag, address, options.insecure));
  }
  return absl::OkStatus();
}

absl::Status Finish(const Texts& texts, WorkerOptions& options) {
  MUSTER_RETURN_IF_ERROR(CheckSecrecy(options));
  if (options.worker_id.empty()) options.worker_id = absl::StrCat(HostName(), "-", getpid());
  if (options.domain.empty()) options.domain = HostName();
  options.kv_memory = ParseSize(texts.kv_memory);
  absl::ParseDuration(texts.client_lease, &options.client_lease);
  absl::ParseDuration(texts.drain_timeout, &options.drain_timeout);
  absl::ParseDuration(texts.stall_timeout, &options.stall_timeout);
  options.fault = ParseFault(texts.fault);
  options.device_ordinal = DeviceOrdinal(texts.device_ordinal);
  options.fusion = !texts.no_fusion;
  options.graphs = !texts.no_graphs;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<WorkerOptions>> ParseOptions(int argc, const char* const* argv,
                                                          std::ostream& out) {
  CLI::App app(kDescription, "muster-worker");
  app.footer(kFooter);
  WorkerOptions options;
  options.threads = UsableProcessors();
  Texts texts;
  AddFleetFlags(app, options, texts);
  AddModelFlags(app, options, texts);
  AddDeviceFlags(app, options, texts);
  AddOwnFlags(app, options, texts);
  MUSTER_ASSIGN_OR_RETURN(const bool runs,
                          ParseFlags(app, argc, argv, out, [&] { return Finish(texts, options); }));
  if (!runs) return std::optional<WorkerOptions>();
  return std::optional<WorkerOptions>(std::move(options));
}

}  // namespace muster
