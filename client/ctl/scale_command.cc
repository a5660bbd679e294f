// `musterctl scale-cp`: another context-parallel size, while the fleet serves.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "base/status_macros.h"
#include "base/wire_operation_json.h"
#include "client/ctl/change_table.h"
#include "client/ctl/command.h"
#include "client/ctl/operation_command.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "Sequences and their KV go over to the new size, and no request fails: new ones wait out the\n"
    "pause. Until it takes effect a failure, or musterctl cancel ID, leaves everything as it was.\n"
    "Ctrl-C ends the watching, not the operation; the same command with --request-id ID goes on\n"
    "watching it.";

struct ScaleOptions {
  uint32_t cp = 0;
  bool dry_run = false;
  OperationFlags flags;
};

int RunScale(const ScaleOptions& options, const GlobalOptions& global) {
  if (options.dry_run) {
    v1::PlanTopologyRequest request;
    request.mutable_config()->set_cp(options.cp);
    return ExitStatus(PrintPlan(request, global));
  }
  v1::ScaleContextParallelRequest request;
  const OperationOptions session = options.flags.Session(global);
  request.set_request_id(session.request_id);
  request.set_cp(options.cp);
  options.flags.SetTimeout(request);
  return RunOperation(session, [&](const FleetClient& client, grpc::ClientContext& context,
                                   const FleetClient::UseOperation& use) {
    return client.Scale(request, context, use);
  });
}

}  // namespace

void AddScaleCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<ScaleOptions>();
  CLI::App* scale =
      app.add_subcommand("scale-cp", "Change the context-parallel size while serving");
  scale->footer(kFooter);
  scale->add_option("cp", options->cp, "Context parallel size that is wanted")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->required();
  scale->add_flag("--dry-run", options->dry_run, "Show what it would take; change nothing");
  options->flags.AddTo(*scale);
  scale->callback([options, &global, &chosen] {
    chosen = [options, &global] { return RunScale(*options, global); };
  });
}

}  // namespace muster::ctl
