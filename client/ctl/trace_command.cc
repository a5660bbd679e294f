// `musterctl trace`: what all ranks did when, as a file for a trace viewer.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/signal_queue.h"
#include "client/ctl/trace_collection.h"
#include "client/ctl/trace_events.h"
#include "client/ctl/up_display.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "  musterctl trace --seconds 5 > trace.json\n"
    "What it writes on standard output is JSON in the Trace Event Format, which ui.perfetto.dev "
    "and\n"
    "chrome://tracing open: a process for each rank, with its steps, collectives and changes of\n"
    "shape, and on a leader the requests; all on the clock of this host. A worker that cannot be\n"
    "traced, or is lost meanwhile, is left out, and named on standard error. Nothing is recorded\n"
    "while nobody traces. Ctrl-C ends it early, and writes what there is.";

constexpr double kShortestSeconds = 0.1;
constexpr double kLongestSeconds = 60;
constexpr absl::Duration kPoll = absl::Milliseconds(50);
// What a call that is cancelled may take to end.
constexpr absl::Duration kGrace = absl::Seconds(1);

// Not by CLI11's range, which "nan" is in.
std::string CheckSeconds(const std::string& value) {
  double seconds = 0;
  const bool fits = absl::SimpleAtod(value, &seconds) && seconds >= kShortestSeconds &&
                    seconds <= kLongestSeconds;
  return fits ? "" : absl::StrCat("'", value, "' is not a number from 0.1 to 60");
}

// The collection on a thread of its own, so that a signal is answered.
class TraceSession {
 public:
  TraceSession(double seconds, const GlobalOptions& global)
      : duration_(absl::Seconds(seconds)), global_(global), terminal_(TerminalOf(stderr)) {}

  // The program's exit status.
  int Run() {
    if (const absl::Status found = Find(); !found.ok()) return ExitStatus(found);
    if (terminal_.live) {
      std::cerr << "tracing for " << absl::FormatDuration(duration_) << " ..." << std::flush;
    }
    std::thread thread([this] {
      collected_ = collection_->Run(duration_);
      done_.Notify();
    });
    const bool interrupted = AwaitEnd();
    thread.join();
    if (terminal_.live) std::cerr << "\r\x1b[K" << std::flush;
    const absl::Status written = Write();
    if (!interrupted) return ExitStatus(written);
    std::cerr << "musterctl: interrupted; what was traced until then is written" << std::endl;
    return kInterrupted;
  }

 private:
  // Standbys as well: they may get a rank meanwhile.
  absl::Status Find() {
    MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global_.fleet));
    MUSTER_ASSIGN_OR_RETURN(const auto response, FleetClient(address).ListWorkers());
    for (const v1::WorkerStatus& worker : response.workers()) {
      workers_.push_back({worker.address(), worker.worker_id(), address.tls});
    }
    if (workers_.empty()) {
      return absl::NotFoundError("there is nothing to trace: no worker has enlisted");
    }
    collection_.emplace(workers_);
    return absl::OkStatus();
  }

  // Whether a signal ended it.
  bool AwaitEnd() {
    while (!done_.HasBeenNotified()) {
      if (!SignalQueue::AsksToEnd(signals_.Wait(kPoll))) continue;
      collection_->Stop();
      if (!done_.WaitForNotificationWithTimeout(kGrace)) {
        std::cerr << "musterctl: interrupted" << std::endl;
        // The thread, if it still waits, must not outlive what it uses.
        std::_Exit(kInterrupted);
      }
      return true;
    }
    return false;
  }

  absl::Status Write() {
    std::vector<WorkerTrace> traces;
    for (size_t i = 0; i < collected_.size(); ++i) {
      if (collected_[i].ok()) {
        traces.push_back(*std::move(collected_[i]));
        continue;
      }
      std::cerr << absl::StrCat("musterctl: worker ", workers_[i].worker_id,
                                " is left out: ", collected_[i].status().message(), "\n");
    }
    if (traces.empty()) return absl::UnavailableError("no worker could be traced");
    for (const WorkerTrace& trace : traces) {
      if (trace.lost == 0) continue;
      std::cerr << absl::StrCat("musterctl: ", trace.lost, " spans of worker ", trace.worker_id,
                                " are missing: it wrote more than it keeps\n");
    }
    std::cout << ToLine(TraceEvents(traces)) << "\n" << std::flush;
    if (std::cout.good()) return absl::OkStatus();
    return absl::UnknownError("the trace cannot be written to standard output");
  }

  const absl::Duration duration_;
  const GlobalOptions& global_;
  const Terminal terminal_;
  // Before any thread: see there.
  SignalQueue signals_;
  absl::Notification done_;
  std::vector<WorkerAddress> workers_;
  std::optional<TraceCollection> collection_;
  std::vector<absl::StatusOr<WorkerTrace>> collected_;
};

}  // namespace

void AddTraceCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto seconds = std::make_shared<double>(5);
  CLI::App* command = app.add_subcommand("trace", "Record what all ranks do, for a trace viewer");
  command->footer(kFooter);
  command->add_option("--seconds", *seconds, "For how long, from 0.1 to 60")
      ->check(CLI::Validator(CheckSeconds, ""))
      ->type_name("N")
      ->capture_default_str();
  command->callback([seconds, &global, &chosen] {
    chosen = [seconds, &global] { return TraceSession(*seconds, global).Run(); };
  });
}

}  // namespace muster::ctl
