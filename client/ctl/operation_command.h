// What the commands that begin operations have in common.
#ifndef MUSTER_CLIENT_CTL_OPERATION_COMMAND_H_
#define MUSTER_CLIENT_CTL_OPERATION_COMMAND_H_

#include <string>

#include "absl/status/status.h"
#include "client/ctl/command.h"
#include "client/ctl/operation_session.h"
#include "client/ctl/topology_file.h"

namespace muster::ctl {

// --wait, --no-wait, --timeout and --request-id.
struct OperationFlags {
  bool wait = true;
  std::string timeout;     // a time; empty: the coordinator's default
  std::string request_id;  // empty: a new one

  // Adds them to a command; `this` outlives it.
  void AddTo(CLI::App& command);
  OperationOptions Session(const GlobalOptions& global) const;

  // Where there is one; it was checked when the command line was read.
  template <typename Request>
  void SetTimeout(Request& request) const {
    if (!timeout.empty()) *request.mutable_timeout() = ParseTimeout(timeout).value();
  }
};

// Prints what it would take to get there. Errors: as of FleetClient.
absl::Status PrintPlan(const v1::PlanTopologyRequest& request, const GlobalOptions& global);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_OPERATION_COMMAND_H_
