// `musterctl top`: the fleet as it is, again and again.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/screen.h"
#include "client/ctl/text.h"
#include "client/ctl/top_view.h"
#include "client/ctl/up_display.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "On a terminal it takes the whole screen until q or Ctrl-C, and leaves it as it was; NO_COLOR\n"
    "is honoured. Elsewhere, and with --output json or yaml, it prints a report per interval.\n"
    "Rates are those of the last five seconds; --once measures them over one interval.";

// Four calls of a poll, so that Ctrl-C is answered within two seconds.
constexpr absl::Duration kCallTimeout = absl::Milliseconds(450);
constexpr size_t kEventsKept = 64;
constexpr ScreenSize kPage = {.columns = 80, .rows = 0};

struct TopOptions {
  double interval_seconds = 1;
  bool once = false;
};

class TopSession {
 public:
  TopSession(const TopOptions& options, const GlobalOptions& global)
      : interval_(absl::Seconds(options.interval_seconds)),
        once_(options.once),
        global_(global),
        terminal_(TerminalOf(stdout)),
        full_screen_(terminal_.live && global.for_people() && !options.once),
        inputs_(full_screen_ && isatty(STDIN_FILENO) ? STDIN_FILENO : -1) {}

  absl::Status Run() {
    MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global_.fleet));
    client_.emplace(address, kCallTimeout);
    frame_.coordinator = client_->address();
    // A fleet that is not there is no reason to take the screen.
    MUSTER_RETURN_IF_ERROR(Poll());
    if (full_screen_) return RunFullScreen();
    return once_ ? RunOnce() : RunPages();
  }

 private:
  absl::Status Poll() {
    const auto snapshot = TakeSnapshot(*client_, &next_event_);
    frame_.time = absl::Now();
    if (!snapshot.ok()) {
      frame_.trouble = absl::StrCat(HumanDuration(frame_.time - last_answer_),
                                    " old: ", snapshot.status().message());
      return snapshot.status();
    }
    last_answer_ = frame_.time;
    frame_.trouble.clear();
    frame_.topology = snapshot->topology;
    frame_.workers = snapshot->workers;
    // A coordinator that knows no operations runs none.
    frame_.operations = client_->ListOperations().value_or(v1::ListOperationsResponse());
    frame_.rates.Add(frame_.time, frame_.workers);
    frame_.events.insert(frame_.events.end(), snapshot->new_events.begin(),
                         snapshot->new_events.end());
    while (frame_.events.size() > kEventsKept) frame_.events.pop_front();
    return absl::OkStatus();
  }

  absl::Status RunFullScreen() {
    Screen screen(STDIN_FILENO, STDOUT_FILENO, terminal_.color);
    absl::Time next = absl::Now() + interval_;
    while (screen.Draw(TopLines(frame_, screen.Size()))) {
      const ScreenInput input = inputs_.Wait(next - absl::Now());
      if (input == ScreenInput::kQuit) break;
      if (input == ScreenInput::kSuspend) {
        screen.Leave();
        raise(SIGSTOP);
        screen.Enter();
      }
      if (absl::Now() < next) continue;
      // What is wrong is shown, and may pass.
      Poll().IgnoreError();
      next = absl::Now() + interval_;
    }
    return absl::OkStatus();
  }

  absl::Status RunOnce() {
    if (Quits()) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(Poll());
    Print();
    return absl::OkStatus();
  }

  absl::Status RunPages() {
    for (Print(); !Quits(); Print()) {
      MUSTER_RETURN_IF_ERROR(Poll());
      if (!std::cout) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // Waits for an interval; true when a signal asks to end.
  bool Quits() {
    const absl::Time next = absl::Now() + interval_;
    while (absl::Now() < next) {
      const ScreenInput input = inputs_.Wait(next - absl::Now());
      if (input == ScreenInput::kQuit) return true;
      if (input == ScreenInput::kSuspend) raise(SIGSTOP);
    }
    return false;
  }

  void Print() {
    if (!global_.for_people()) return WriteReport(std::cout, global_.output, TopJson(frame_));
    if (printed_) std::cout << "\n";
    printed_ = true;
    for (const ScreenLine& line : TopLines(frame_, kPage)) {
      std::cout << (terminal_.color ? Styled(line) : line.text) << "\n";
    }
    std::cout.flush();
  }

  const absl::Duration interval_;
  const bool once_;
  const GlobalOptions& global_;
  const Terminal terminal_;
  const bool full_screen_;
  // Before any thread: see there.
  ScreenInputs inputs_;
  std::optional<FleetClient> client_;
  uint64_t next_event_ = 0;
  absl::Time last_answer_ = absl::Now();
  TopFrame frame_;
  bool printed_ = false;
};

}  // namespace

void AddTopCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* top = app.add_subcommand("top", "Watch ranks, rates, KV use and queues");
  top->footer(kFooter);
  top->add_option("--interval", options->interval_seconds, "Seconds from one look to the next")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  top->add_flag("--once", options->once, "Print one report and end");
  top->callback([options, &global, &chosen] {
    chosen = [options, &global] { return ExitStatus(TopSession(*options, global).Run()); };
  });
}

}  // namespace muster::ctl
