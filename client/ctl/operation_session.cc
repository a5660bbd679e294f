#include "client/ctl/operation_session.h"

#include <deque>
#include <iostream>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/wire_operation_json.h"
#include "base/wire_status.h"
#include "client/ctl/operation_display.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/signal_queue.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kPeriod = absl::Milliseconds(25);
constexpr int kInterruptedStatus = 130;

// The stream of one operation, read by a thread of its own.
class OperationStream {
 public:
  OperationStream(const FleetClient& client, const BeginOperation& begin)
      : thread_([this, &client, &begin] {
          const absl::Status status =
              begin(client, context_, [this](const v1::Operation& operation) { Push(operation); });
          absl::MutexLock lock(&mutex_);
          end_ = status;
        }) {}
  ~OperationStream() {
    context_.TryCancel();
    thread_.join();
  }

  // Its states since the last call.
  std::deque<v1::Operation> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(states_, {});
  }
  // How the stream ended, once nothing is left to take.
  std::optional<absl::Status> end() {
    absl::MutexLock lock(&mutex_);
    return states_.empty() ? end_ : std::nullopt;
  }

 private:
  void Push(const v1::Operation& operation) {
    absl::MutexLock lock(&mutex_);
    states_.push_back(operation);
  }

  grpc::ClientContext context_;
  absl::Mutex mutex_;
  std::deque<v1::Operation> states_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

int Fail(absl::string_view message, int status) {
  std::cout.flush();
  std::cerr << "musterctl: " << message << "\n";
  return status;
}

// What the epochs before are said to do after a failure, unless the failure says it itself.
std::string StillServes(const v1::Operation& operation) {
  std::vector<std::string> epochs;
  for (const auto& resize : operation.replicas()) {
    if (resize.stage() == v1::RESIZE_STAGE_ROLLED_BACK) {
      epochs.push_back(absl::StrCat(resize.from_epoch()));
    }
  }
  if (epochs.empty() || absl::StrContains(operation.failure().message(), "still serve")) return "";
  return epochs.size() == 1
             ? absl::StrCat("; epoch ", epochs[0], " still serves")
             : absl::StrCat("; epochs ", absl::StrJoin(epochs, ", "), " still serve");
}

class OperationSession {
 public:
  explicit OperationSession(const OperationOptions& options)
      : options_(options), display_(TerminalOf(stdout)) {}

  int Run(const BeginOperation& begin) {
    const auto address = FindCoordinator(options_.fleet);
    if (!address.ok()) return Fail(address.status().message(), 1);
    const FleetClient client(*address);
    OperationStream stream(client, begin);
    while (true) {
      if (SignalQueue::AsksToEnd(signals_.Wait(kPeriod))) return Interrupt();
      for (v1::Operation& operation : stream.Take()) {
        last_ = std::move(operation);
        if (!options_.wait) return Started();
        if (for_people() && !last_->no_change()) display_.Show(*last_, absl::Now());
      }
      if (const auto end = stream.end()) return End(*end);
      if (for_people() && last_.has_value() && !last_->no_change()) {
        display_.Show(*last_, absl::Now());
      }
    }
  }

 private:
  bool for_people() const { return options_.output == Output::kTable; }

  int Started() {
    if (last_->state() != v1::OPERATION_STATE_RUNNING) return Finish();
    if (!for_people()) {
      WriteReport(std::cout, options_.output, OperationJson(*last_));
      return 0;
    }
    std::cout << absl::StrCat(CommandOf(last_->kind()), "   ", last_->summary(), "   operation ",
                              last_->id(), " has started\n",
                              "  musterctl operations       how it gets on\n",
                              "  musterctl events --follow  every step of it\n",
                              "  musterctl cancel ", last_->id(), "\n");
    return 0;
  }

  int Interrupt() {
    display_.Finish();
    const std::string& id = options_.request_id;
    if (!last_.has_value()) {
      return Fail(
          absl::StrCat("interrupted; whether operation ", id,
                       " has begun is not known: musterctl operations tells, musterctl cancel ", id,
                       " ends it"),
          kInterruptedStatus);
    }
    return Fail(absl::StrCat("interrupted; operation ", last_->id(),
                             " goes on: musterctl operations shows it, musterctl cancel ",
                             last_->id(), " ends it"),
                kInterruptedStatus);
  }

  int End(const absl::Status& status) {
    display_.Finish();
    if (status.ok() && last_.has_value()) return Finish();
    if (!last_.has_value()) {
      return Fail(status.ok() ? "the coordinator said nothing of the operation" : status.message(),
                  1);
    }
    return Fail(absl::StrCat("operation ", last_->id(), " is out of sight: ", status.message(),
                             " (musterctl operations tells what became of it)"),
                1);
  }

  int Finish() {
    const absl::Status outcome = OutcomeOf(*last_);
    if (!for_people()) {
      WriteReport(std::cout, options_.output, OperationJson(*last_));
    } else {
      PrintResult(outcome.ok());
    }
    return outcome.ok() ? 0 : Fail(outcome.message(), 1);
  }

  void PrintResult(bool ok) {
    if (last_->no_change()) {
      std::cout << absl::StrCat(last_->summary(), ": nothing had to be changed\n");
      return;
    }
    if (ok && last_->replicas_size() == 0) std::cout << DoneLine(*last_) << "\n";
    const bool several = last_->replicas_size() > 1;
    for (const auto& resize : last_->replicas()) {
      if (!ok && resize.stage() != v1::RESIZE_STAGE_DONE) continue;
      std::cout << (several ? absl::StrCat("replica ", resize.replica(), ": ") : "")
                << ResizeSummary(resize) << "\n";
    }
  }

  const OperationOptions& options_;
  // Before any thread: see there.
  SignalQueue signals_;
  OperationDisplay display_;
  std::optional<v1::Operation> last_;
};

}  // namespace

int RunOperation(const OperationOptions& options, const BeginOperation& begin) {
  return OperationSession(options).Run(begin);
}

std::string NewRequestId() {
  std::random_device random;
  return absl::StrFormat("ctl-%08x", random());
}

absl::Status OutcomeOf(const v1::Operation& operation) {
  if (operation.state() == v1::OPERATION_STATE_DONE) return absl::OkStatus();
  const absl::Status failure = FailureOf(operation.failure());
  const bool failed = operation.state() == v1::OPERATION_STATE_FAILED;
  return absl::Status(failure.code(),
                      absl::StrCat(operation.summary(), failed ? " failed: " : " was rolled back: ",
                                   failure.message(), StillServes(operation),
                                   failed ? "; the replica is formed again" : ""));
}

}  // namespace muster::ctl
