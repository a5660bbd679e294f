// `musterctl plan`: what other sizes would look like on the workers that are there.
#include <CLI/CLI.hpp>
#include <memory>

#include "client/ctl/command.h"
#include "client/ctl/operation_command.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "Of a fleet that serves it shows what the change would take; of one that does not, who would\n"
    "hold which rank. Sizes that are left out stay as they are.";

struct PlanOptions {
  uint32_t tp = 0;
  uint32_t cp = 0;
  uint32_t replicas = 0;
};

absl::Status RunPlan(const PlanOptions& options, const GlobalOptions& global) {
  v1::PlanTopologyRequest request;
  request.mutable_config()->set_tp(options.tp);
  request.mutable_config()->set_cp(options.cp);
  request.mutable_config()->set_replicas(options.replicas);
  // What would be lost is shown.
  request.add_drop("*");
  return PrintPlan(request, global);
}

void AddSize(CLI::App& plan, const char* name, uint32_t& size, const char* description) {
  plan.add_option(name, size, description)
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->default_str("as it is");
}

}  // namespace

void AddPlanCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* plan = app.add_subcommand("plan", "Try sizes out without changing anything");
  plan->footer(kFooter);
  AddSize(*plan, "--tp", options->tp, "Tensor parallel size");
  AddSize(*plan, "--cp", options->cp, "Context parallel size");
  AddSize(*plan, "--replicas", options->replicas, "Independent copies of the model");
  plan->callback([options, &global, &chosen] {
    chosen = [options, &global] { return ExitStatus(RunPlan(*options, global)); };
  });
}

}  // namespace muster::ctl
