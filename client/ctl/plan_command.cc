// `musterctl plan`: what other sizes would look like on the workers that are there.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/fleet_json.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

struct PlanOptions {
  uint32_t tp = 1;
  uint32_t cp = 1;
  uint32_t replicas = 1;
};

void Print(const v1::PlanTopologyResponse& plan, const v1::ListWorkersResponse& workers) {
  for (const auto& topology : plan.topologies()) {
    std::cout << absl::StrCat(
        "PLAN  replica ", topology.replica(), "  epoch ", topology.epoch(), "   ",
        ParallelSizes(topology.config()), "   ", Count(topology.ranks_size(), "worker"),
        "   (nothing has been changed)\n\n", TopologyPicture(topology, workers, 2), "\n");
  }
  Table table(
      {{"  RANK"}, {"WEIGHTS", Table::Align::kRight}, {"KV PER BLOCK", Table::Align::kRight}});
  for (const auto& footprint : plan.footprints()) {
    table.AddRow({absl::StrCat("  ", footprint.rank()), HumanBytes(footprint.weight_bytes()),
                  HumanBytes(footprint.kv_block_bytes())});
  }
  std::cout << table.ToString();
}

absl::Status RunPlan(const PlanOptions& options, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.coordinator));
  const FleetClient client(address);
  v1::ParallelConfig config;
  config.set_tp(options.tp);
  config.set_cp(options.cp);
  config.set_pp(1);
  config.set_replicas(options.replicas);
  MUSTER_ASSIGN_OR_RETURN(const auto plan, client.PlanTopology(config));
  if (!global.for_people()) {
    WriteReport(std::cout, global.output, PlanJson(plan));
    return absl::OkStatus();
  }
  MUSTER_ASSIGN_OR_RETURN(const auto workers, client.ListWorkers());
  Print(plan, workers);
  return absl::OkStatus();
}

}  // namespace

void AddPlanCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* plan = app.add_subcommand("plan", "Try sizes out without changing anything");
  plan->add_option("--tp", options->tp, "Tensor parallel size")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  plan->add_option("--cp", options->cp, "Context parallel size")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  plan->add_option("--replicas", options->replicas, "Independent copies of the model")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  plan->callback([options, &global, &chosen] {
    chosen = [options, &global] { return ExitStatus(RunPlan(*options, global)); };
  });
}

}  // namespace muster::ctl
