// `musterctl up`: a fleet of this machine, in the foreground.
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/coordinator_record.h"
#include "client/ctl/up_display.h"
#include "client/ctl/up_events.h"

namespace muster::ctl {
namespace {

constexpr int kMaxWorkers = 64;
constexpr absl::Duration kEnlistTimeout = absl::Seconds(60);
// How long the coordinator may take to say what the death of a worker broke off.
constexpr absl::Duration kExplanationTimeout = absl::Seconds(1);
constexpr absl::Duration kFormingPeriod = absl::Milliseconds(40);
constexpr absl::Duration kServingPeriod = absl::Milliseconds(200);

struct UpOptions {
  LocalFleetOptions fleet;
  std::vector<std::string> faults;  // "w1:kill@warmup/exchange"
  bool show = false;
  bool die_with_parent = false;
  int parent = 0;
};

// One run of a local fleet, from start to end.
class UpSession {
 public:
  UpSession(const UpOptions& options, std::vector<UpView*> views)
      : options_(options), views_(std::move(views)) {}

  // OK when it was asked to end.
  absl::Status Run();

 private:
  absl::Status RunFleet();
  // Until all replicas serve. Sets interrupted_ when it was asked to end.
  absl::Status Form(const FleetClient& client);
  // Until it was asked to end or nothing is left to supervise.
  absl::Status Supervise(const FleetClient& client);
  // Once; the views are told.
  absl::Status StartStandbys();
  absl::Status AnnounceServing(const FleetSnapshot& snapshot);
  // Looks for processes that ended; what a forming fleet dies of.
  absl::Status CheckProcesses();
  // Waits; true when a signal asks to end.
  bool Interrupted(absl::Duration period);

  template <typename Call>
  void Tell(const Call& call) {
    for (UpView* view : views_) call(*view);
  }

  const UpOptions& options_;
  const std::vector<UpView*> views_;
  SignalQueue signals_;
  std::unique_ptr<LocalFleet> fleet_;
  FleetTls tls_;  // of the fleet's operator
  uint64_t next_event_ = 0;
  bool standbys_started_ = false;
  bool interrupted_ = false;
};

absl::Status UpSession::Run() {
  absl::Status status = RunFleet();
  if (!status.ok()) Tell([&](UpView& view) { view.Failed(status); });
  if (fleet_ == nullptr) return status;
  const absl::Time start = absl::Now();
  const int count = static_cast<int>(fleet_->processes().size());
  fleet_->Stop(signals_);
  if (status.ok()) Tell([&](UpView& view) { view.Stopped(count, absl::Now() - start); });
  return status;
}

absl::Status UpSession::RunFleet() {
  auto started = LocalFleet::Start(options_.fleet, signals_);
  if (absl::IsCancelled(started.status())) return absl::OkStatus();
  MUSTER_RETURN_IF_ERROR(started.status());
  fleet_ = std::move(started).value();
  Tell([&](UpView& view) { view.Started(*fleet_); });
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorRecord record, CoordinatorRecord::Open());
  const std::string address = fleet_->coordinator_address();
  MUSTER_ASSIGN_OR_RETURN(tls_, FleetTls::Open(fleet_->TlsFolder("operator")));
  MUSTER_RETURN_IF_ERROR(record.Write({address, tls_.directory}));
  const FleetClient client({address, "", tls_}, absl::Milliseconds(400));
  absl::Status status = Form(client);
  if (status.ok() && !interrupted_) status = Supervise(client);
  record.Remove(address);
  return status;
}

absl::Status UpSession::Form(const FleetClient& client) {
  const absl::Time enlist_deadline = absl::Now() + kEnlistTimeout;
  std::optional<absl::Status> death;
  std::string failed_epoch;  // what the coordinator said of it, be it before the death was noticed
  absl::Time explanation_deadline = absl::InfiniteFuture();
  while (!(interrupted_ = Interrupted(kFormingPeriod))) {
    if (absl::Status ended = CheckProcesses(); !ended.ok() && !death.has_value()) {
      // A process that explains itself needs no other explanation.
      if (!absl::IsUnavailable(ended)) return ended;
      death = ended;
      explanation_deadline = absl::Now() + kExplanationTimeout;
    }
    if (absl::Now() > explanation_deadline) return *death;
    const auto snapshot = TakeSnapshot(client, &next_event_);
    // A coordinator that is busy answers the next time.
    if (!snapshot.ok()) continue;
    const int enlisted = snapshot->workers.workers_size();
    if (enlisted >= options_.fleet.ranks()) MUSTER_RETURN_IF_ERROR(StartStandbys());
    Tell([&](UpView& view) { view.Changed(*snapshot); });
    for (const auto& event : snapshot->new_events) {
      if (event.kind() == v1::EVENT_KIND_EPOCH_FAILED) failed_epoch = event.message();
    }
    if (death.has_value() && !failed_epoch.empty()) return absl::UnavailableError(failed_epoch);
    MUSTER_RETURN_IF_ERROR(FirstFailure(*snapshot));
    const bool complete = enlisted >= options_.fleet.workers() && AllServe(*snapshot);
    if (complete && !death.has_value()) {
      const absl::Status announced = AnnounceServing(*snapshot);
      // A leader that is busy, or has just died, is looked at again.
      if (!absl::IsUnavailable(announced) && !absl::IsDeadlineExceeded(announced)) return announced;
    }
    if (absl::Now() > enlist_deadline && enlisted < options_.fleet.workers()) {
      return absl::DeadlineExceededError(absl::StrCat(enlisted, " of ", options_.fleet.workers(),
                                                      " workers have enlisted within ",
                                                      absl::FormatDuration(kEnlistTimeout)));
    }
  }
  return absl::OkStatus();
}

absl::Status UpSession::StartStandbys() {
  if (options_.fleet.standbys == 0 || standbys_started_) return absl::OkStatus();
  standbys_started_ = true;
  MUSTER_RETURN_IF_ERROR(fleet_->StartStandbys());
  Tell([&](UpView& view) { view.StandbysStarted(*fleet_); });
  return absl::OkStatus();
}

absl::Status UpSession::AnnounceServing(const FleetSnapshot& snapshot) {
  const InferenceClient leader(LeaderOf(snapshot.topology.replicas(0), tls_), absl::Seconds(1));
  MUSTER_ASSIGN_OR_RETURN(const v1::GetModelResponse model, leader.GetModel());
  Tell([&](UpView& view) { view.Serving(snapshot, model); });
  return absl::OkStatus();
}

absl::Status UpSession::Supervise(const FleetClient& client) {
  while (!(interrupted_ = Interrupted(kServingPeriod))) {
    // The views are told of every end; only these two end the fleet.
    CheckProcesses().IgnoreError();
    if (ChildProcess& coordinator = *fleet_->processes()[0]; coordinator.HasEnded()) {
      return absl::UnavailableError(absl::StrCat(coordinator.name(), " ", coordinator.Fate()));
    }
    int left = -1;  // the coordinator is no worker
    for (const auto& process : fleet_->processes()) left += process->HasEnded() ? 0 : 1;
    if (left == 0) return absl::UnavailableError("no worker is left");
    const auto snapshot = TakeSnapshot(client, &next_event_);
    if (snapshot.ok()) Tell([&](UpView& view) { view.Changed(*snapshot); });
  }
  return absl::OkStatus();
}

absl::Status UpSession::CheckProcesses() {
  absl::Status first;
  for (const ChildProcess* process : fleet_->TakeEnded()) {
    Tell([&](UpView& view) { view.ProcessEnded(*process); });
    if (!first.ok()) continue;
    const std::string message = absl::StrCat(process->name(), ": ", process->Fate());
    first = process->killed_by_signal()
                ? absl::UnavailableError(absl::StrCat(process->name(), " ", process->Fate()))
                : absl::FailedPreconditionError(message);
  }
  return first;
}

bool UpSession::Interrupted(absl::Duration period) {
  return SignalQueue::AsksToEnd(signals_.Wait(period));
}

absl::Status DieWithParent(const UpOptions& options) {
  if (!options.die_with_parent) return absl::OkStatus();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (options.parent != 0 && getppid() != options.parent) {
    return absl::CancelledError("the program that started this one is gone");
  }
  return absl::OkStatus();
}

int RunUp(const UpOptions& options, bool json) {
  // The daemons' flags are those of this command, whatever a client of another fleet has set.
  unsetenv("MUSTER_TLS");
  UpDisplay display(TerminalOf(json ? stderr : stdout), /*titled=*/!json);
  UpEvents events(stdout);
  std::vector<UpView*> views;
  if (json) views.push_back(&events);
  if (!json || options.show) views.insert(views.begin(), &display);
  // Blocks the signals before gRPC starts its threads, and before the parent's death may send one.
  UpSession session(options, views);
  absl::Status status = DieWithParent(options);
  if (status.ok()) status = session.Run();
  if (json) return status.ok() ? 0 : 1;
  return ExitStatus(status);
}

std::string CheckRange(const std::string& text) {
  const std::vector<std::string> ends = absl::StrSplit(text, ':');
  int least = 0, most = 0;
  const bool numbers =
      ends.size() == 2 && absl::SimpleAtoi(ends[0], &least) && absl::SimpleAtoi(ends[1], &most);
  const bool range = numbers && 1 <= least && least <= most && most <= 1024;
  return range ? "" : absl::StrCat("wants MIN:MAX, e.g. 1:4, not '", text, "'");
}

// Which GPUs there are is for the workers to say.
std::string CheckDevice(const std::string& text) {
  const bool known =
      text == "auto" || text == "cpu" || text == "cuda" || (text.starts_with("cuda:") && text[5]);
  return known ? "" : absl::StrCat("wants auto, cpu, cuda, cuda:N or cuda:UUID, not '", text, "'");
}

// What is served, and by how many workers.
void AddShapeOptions(CLI::App& up, LocalFleetOptions& fleet) {
  up.add_option("--model", fleet.model, "Hugging Face directory of a model")
      ->type_name("DIR")
      ->required();
  up.add_option("--tp", fleet.tp, "Tensor parallel: attention heads are split over it")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  up.add_option("--cp", fleet.cp, "Context parallel: the KV cache is split over it")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  up.add_option("--replicas", fleet.replicas, "Independent copies of the model")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  up.add_option("--standby", fleet.standbys, "Workers beyond those with a rank, to grow into")
      ->check(CLI::Range(0, kMaxWorkers))
      ->type_name("N")
      ->capture_default_str();
  up.add_option("--resize-range", fleet.resize_range, "Smallest and largest cp to keep room for")
      ->check(CLI::Validator(CheckRange, ""))
      ->type_name("MIN:MAX")
      ->default_str("half to double");
}

void AddDeviceOptions(CLI::App& up, LocalFleetOptions& fleet) {
  up.add_option("--device", fleet.device,
                "auto (GPUs where there are enough), cpu, cuda, cuda:N or cuda:UUID")
      ->check(CLI::Validator(CheckDevice, ""))
      ->type_name("DEVICE")
      ->capture_default_str();
  up.add_option("--oversubscribe", fleet.oversubscribe, "Workers that share a GPU, best under MPS")
      ->check(CLI::Range(1, kMaxWorkers))
      ->type_name("N")
      ->capture_default_str();
  up.add_option("--load-format", fleet.load_format,
                "auto, safetensors, or dummy: made-up weights, from config.json alone")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}))
      ->type_name("FORMAT");
  up.add_option("--memory-fraction", fleet.memory_fraction,
                "Share of a GPU's memory that its workers may use, e.g. 0.8")
      ->check(CLI::Range(0.05, 0.98))
      ->type_name("X");
}

// Accepts what the daemons accept, so that a mistake costs no fleet.
std::string CheckFault(const std::string& text) {
  const size_t colon = text.find(':');
  return colon == 0 || colon == std::string::npos ? "wants WORKER:FAULT" : "";
}

}  // namespace

void AddUpCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<UpOptions>();
  LocalFleetOptions& fleet = options->fleet;
  CLI::App* up = app.add_subcommand("up", "Run a fleet on this machine, in the foreground");
  AddShapeOptions(*up, fleet);
  up->add_option("--threads", fleet.threads, "Threads per worker (default: cores / workers)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  up->add_option("--dtype", fleet.dtype,
                 "auto, float32, bfloat16 or float16: type of weights and KV")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  up->add_option("--kv-memory", fleet.kv_memory, "KV cache per rank, e.g. 512MiB")
      ->type_name("SIZE");
  AddDeviceOptions(*up, fleet);
  up->add_flag("--no-fusion", fleet.no_fusion, "Separate all-reduce, residual and norm");
  up->add_flag("--no-graphs", fleet.no_graphs, "Run every step eagerly");
  up->add_flag("--tls", fleet.tls, "Talk by TLS, with certificates made for this fleet");
  up->add_option("--log-dir", fleet.log_dir, "Where the daemons' logs go (default: nowhere)")
      ->type_name("DIR");
  up->add_option("--listen", fleet.listen, "Where the coordinator listens")
      ->type_name("ADDRESS")
      ->capture_default_str();
  up->add_option("--bin-dir", fleet.bin_dir, "Where the daemons are (default: beside musterctl)")
      ->type_name("DIR");
  up->add_flag("--show", options->show, "With --json: show people what happens, on stderr");
  up->add_flag("--die-with-parent", options->die_with_parent,
               "End when the program that started this one ends");
  up->add_option("--parent", options->parent, "Its process id")->group("");
  up->add_option("--fault", options->faults, "WORKER:FAULT, for tests")
      ->check(CLI::Validator(CheckFault, "WORKER:FAULT"))
      ->group("");
  up->callback([options, &global, &chosen] {
    LocalFleetOptions& fleet = options->fleet;
    const int64_t workers = int64_t{fleet.tp} * fleet.cp * fleet.replicas + fleet.standbys;
    if (workers > kMaxWorkers) {
      throw CLI::ValidationError(absl::StrCat("--tp x --cp x --replicas + --standby is ", workers,
                                              " workers, and one machine runs at most ",
                                              kMaxWorkers));
    }
    for (const std::string& fault : options->faults) {
      const size_t colon = fault.find(':');
      fleet.faults[fault.substr(0, colon)] = fault.substr(colon + 1);
    }
    if (!global.fleet.tls.empty()) {
      throw CLI::ValidationError(
          "--tls", "up makes certificates of its own: it takes --tls without a folder");
    }
    if (global.output == Output::kYaml) {
      throw CLI::ValidationError("--output", "up tells what happens as lines of json, not as yaml");
    }
    chosen = [options, &global] { return RunUp(*options, !global.for_people()); };
  });
}

}  // namespace muster::ctl
