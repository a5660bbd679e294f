// `musterctl drain`: takes a worker out of service.
#include <CLI/CLI.hpp>
#include <memory>

#include "client/ctl/command.h"
#include "client/ctl/operation_command.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "A standby takes the worker's rank with its KV; where there is none, cp shrinks. The worker\n"
    "then gets no rank any more, until its process is started again.";

struct DrainOptions {
  std::string worker;
  OperationFlags flags;
};

int RunDrain(const DrainOptions& options, const GlobalOptions& global) {
  v1::DrainWorkerRequest request;
  const OperationOptions session = options.flags.Session(global);
  request.set_request_id(session.request_id);
  request.set_worker_id(options.worker);
  options.flags.SetTimeout(request);
  return RunOperation(session, [&](const FleetClient& client, grpc::ClientContext& context,
                                   const FleetClient::UseOperation& use) {
    return client.Drain(request, context, use);
  });
}

}  // namespace

void AddDrainCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<DrainOptions>();
  CLI::App* drain = app.add_subcommand("drain", "Take a worker out of service, its KV kept");
  drain->footer(kFooter);
  drain->add_option("worker", options->worker, "Its id")->type_name("WORKER")->required();
  options->flags.AddTo(*drain);
  drain->callback([options, &global, &chosen] {
    chosen = [options, &global] { return RunDrain(*options, global); };
  });
}

}  // namespace muster::ctl
