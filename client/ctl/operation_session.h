// Begins an operation and stays with it to its end, on behalf of a person or a program.
#ifndef MUSTER_CLIENT_CTL_OPERATION_SESSION_H_
#define MUSTER_CLIENT_CTL_OPERATION_SESSION_H_

#include <functional>
#include <string>

#include "client/ctl/fleet_client.h"
#include "client/ctl/report.h"

namespace muster::ctl {

struct OperationOptions {
  FleetFlags fleet;
  Output output = Output::kTable;
  std::string request_id;
  bool wait = true;  // for the end; otherwise for the beginning
};

// One of FleetClient's calls that begin an operation.
using BeginOperation = std::function<absl::Status(const FleetClient&, grpc::ClientContext&,
                                                  const FleetClient::UseOperation&)>;

// Runs it, prints what became of it, and returns the program's exit status: 0 when it took effect
// or nothing had to be changed, 1 when not, and 130 when a signal asked to end; the operation then
// goes on, which is said with its id. Call it before any thread is started: it blocks signals.
int RunOperation(const OperationOptions& options, const BeginOperation& begin);

// A new request id.
std::string NewRequestId();

// Why an operation that has ended did not take effect, in one line that says what serves now; OK
// when it did, or nothing had to be changed.
absl::Status OutcomeOf(const v1::Operation& operation);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_OPERATION_SESSION_H_
