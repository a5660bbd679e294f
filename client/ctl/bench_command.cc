// `musterctl bench`: how long steps take, and how much of what the devices can do that is.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "client/ctl/bench_report.h"
#include "client/ctl/bench_run.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/signal_queue.h"
#include "client/ctl/up_display.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "It is meant for a fleet that does nothing else. First all ranks measure at once how fast "
    "they\n"
    "read memory and multiply matrices; what they reach together is the limit that every step is\n"
    "held against: the longer of reading its weights, keys and values, and of multiplying them.\n"
    "Ctrl-C ends it, and frees what it holds.";

constexpr absl::Duration kMeasureTimeout = absl::Seconds(30);
constexpr absl::Duration kPoll = absl::Milliseconds(50);
// What the step that is under way may take once a signal came, and to free what is left.
constexpr absl::Duration kGrace = absl::Milliseconds(800);
constexpr absl::Duration kFreeTimeout = absl::Milliseconds(500);

struct BenchCommandOptions {
  BenchOptions bench;
  std::optional<uint32_t> replica;
};

// All ranks at once, as they are in a step.
absl::StatusOr<BenchLimits> MeasureLimits(const v1::Topology& topology, const FleetTls& tls) {
  const size_t count = static_cast<size_t>(topology.ranks_size());
  std::vector<absl::StatusOr<v1::MeasureDeviceResponse>> speeds(count,
                                                                absl::UnknownError("not measured"));
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < count; ++rank) {
    threads.emplace_back([&, rank] {
      const v1::RankPlacement& placed = topology.ranks(static_cast<int>(rank));
      speeds[rank] = MeasureDevice({placed.address(), placed.worker_id(), tls}, kMeasureTimeout);
    });
  }
  for (std::thread& thread : threads) thread.join();
  BenchLimits limits;
  for (size_t rank = 0; rank < count; ++rank) {
    if (!speeds[rank].ok()) {
      return absl::Status(speeds[rank].status().code(),
                          absl::StrCat("cannot measure the device of rank ", rank, ": ",
                                       speeds[rank].status().message()));
    }
    limits.read_bytes_per_second += speeds[rank]->read_bytes_per_second();
    limits.matrix_flops_per_second += speeds[rank]->matrix_flops_per_second();
  }
  return limits;
}

// The benchmark on a thread of its own, so that a signal is answered whatever it waits for.
class BenchSession {
 public:
  BenchSession(const BenchCommandOptions& options, const GlobalOptions& global)
      : options_(options), global_(global), terminal_(TerminalOf(stderr)) {}

  // The program's exit status.
  int Run() {
    const absl::Status found = Find();
    if (!found.ok()) return ExitStatus(found);
    absl::Status status;
    std::thread thread([this, &status] {
      status = Measure();
      done_.Notify();
    });
    while (!done_.HasBeenNotified()) {
      if (SignalQueue::AsksToEnd(signals_.Wait(kPoll))) return End(thread);
    }
    thread.join();
    ClearProgress();
    if (!status.ok()) return ExitStatus(status);
    Report();
    return 0;
  }

 private:
  absl::Status Find() {
    MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global_.fleet));
    MUSTER_ASSIGN_OR_RETURN(report_.replica, FindServing(FleetClient(address), options_.replica));
    report_.options = options_.bench;
    tls_ = address.tls;
    leader_.emplace(LeaderOf(report_.replica, tls_));
    MUSTER_ASSIGN_OR_RETURN(const v1::GetModelResponse model, leader_->GetModel());
    report_.model = model.model();
    run_.emplace(*leader_, model, options_.bench, [this](absl::string_view what) { Tell(what); });
    return absl::OkStatus();
  }

  absl::Status Measure() {
    Tell("measure the devices");
    MUSTER_ASSIGN_OR_RETURN(report_.limits, MeasureLimits(report_.replica.topology(), tls_));
    MUSTER_ASSIGN_OR_RETURN(report_.steps, run_->Run());
    return absl::OkStatus();
  }

  int End(std::thread& thread) {
    run_->Stop();
    if (done_.WaitForNotificationWithTimeout(kGrace)) {
      thread.join();
    } else {
      // It waits for a step; nobody else does.
      const InferenceClient impatient(LeaderOf(report_.replica, tls_), kFreeTimeout);
      run_->FreeThrough(impatient);
    }
    ClearProgress();
    std::cerr << "musterctl: interrupted; its sequences are freed" << std::endl;
    // The thread, if it still waits, must not outlive what it uses.
    std::_Exit(kInterrupted);
  }

  void Report() const {
    if (global_.for_people()) {
      std::cout << BenchTable(report_);
    } else {
      WriteReport(std::cout, global_.output, BenchJson(report_));
    }
  }

  void Tell(absl::string_view what) const {
    if (terminal_.live) std::cerr << "\r\x1b[K" << what << " ..." << std::flush;
  }
  void ClearProgress() const {
    if (terminal_.live) std::cerr << "\r\x1b[K" << std::flush;
  }

  const BenchCommandOptions& options_;
  const GlobalOptions& global_;
  const Terminal terminal_;
  // Before any thread: see there.
  SignalQueue signals_;
  absl::Notification done_;
  BenchReport report_;
  FleetTls tls_;
  std::optional<InferenceClient> leader_;
  std::optional<BenchRun> run_;
};

}  // namespace

void AddBenchCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<BenchCommandOptions>();
  BenchOptions& bench = options->bench;
  CLI::App* command =
      app.add_subcommand("bench", "Time steps, and hold them against what the devices can do");
  command->footer(kFooter);
  command->add_option("--context", bench.context, "Tokens of each sequence that decodes")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--repetitions", bench.repetitions, "Steps per number of sequences")
      ->check(CLI::Range(1, 100000))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--batches", bench.batches,
                   "Sequences that decode at once, e.g. 1,8 (default: the captured buckets)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,..");
  command
      ->add_option("--prompts", bench.prompts,
                   "Tokens of the prompts (default: 64, 256 and what a step holds)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,..");
  command->add_option("--replica", options->replica, "Which replica (default: the first that serves)")
      ->type_name("N");
  command->callback([options, &global, &chosen] {
    chosen = [options, &global] { return BenchSession(*options, global).Run(); };
  });
}

}  // namespace muster::ctl
