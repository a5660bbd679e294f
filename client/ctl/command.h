// The commands of musterctl: each adds itself to the command line, and is run when chosen.
#ifndef MUSTER_CLIENT_CTL_COMMAND_H_
#define MUSTER_CLIENT_CTL_COMMAND_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "client/ctl/fleet_address.h"
#include "client/ctl/report.h"

namespace CLI {
class App;
}

namespace muster::ctl {

// Options before or after every command.
struct GlobalOptions {
  FleetFlags fleet;
  Output output = Output::kTable;

  bool for_people() const { return output == Output::kTable; }
};

// Runs after the whole command line is read; returns the program's exit status.
using Command = std::function<int()>;

// `global` is read when the command runs; `chosen` is set when the command line names it. Both
// outlive the app.
void AddUpCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddStatusCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddTopologyCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddPlanCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddEventsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddForwardCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddBenchCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddTraceCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddTopCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddScaleCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddApplyCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddDrainCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddCancelCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddOperationsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddCertsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
// They describe `app` as it is when they run.
void AddCompletionCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);
void AddManCommand(CLI::App& app, const GlobalOptions& global, Command& chosen);

// What a command ends with when a signal asked it to.
constexpr int kInterrupted = 130;

// 0 when OK; otherwise says why on stderr, "musterctl: ...", and returns 1.
int ExitStatus(const absl::Status& status);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_COMMAND_H_
