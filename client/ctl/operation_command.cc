#include "client/ctl/operation_command.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/wire_operation_json.h"
#include "client/ctl/change_table.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

constexpr size_t kMaxIdBytes = 64;

std::string CheckTimeout(const std::string& text) {
  const auto timeout = ParseTimeout(text);
  return timeout.ok() ? "" : absl::StrCat(timeout.status().message(), ", not '", text, "'");
}

std::string CheckId(const std::string& text) {
  return text.empty() || text.size() > kMaxIdBytes ? "wants 1 to 64 bytes" : "";
}

void PrintTopologies(const v1::PlanTopologyResponse& plan, const v1::ListWorkersResponse& workers) {
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

}  // namespace

void OperationFlags::AddTo(CLI::App& command) {
  command.add_flag("--wait,!--no-wait", wait, "Stay until it has ended (default), or has begun");
  command.add_option("--timeout", timeout, "Of each replica's change, then it is rolled back")
      ->check(CLI::Validator(CheckTimeout, ""))
      ->type_name("TIME")
      ->default_str("10m");
  command
      .add_option("--request-id", request_id, "Names the operation; the same one again joins it")
      ->check(CLI::Validator(CheckId, ""))
      ->type_name("ID");
}

OperationOptions OperationFlags::Session(const GlobalOptions& global) const {
  return {.fleet = global.fleet,
          .output = global.output,
          .request_id = request_id.empty() ? NewRequestId() : request_id,
          .wait = wait};
}

absl::Status PrintPlan(const v1::PlanTopologyRequest& request, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  const FleetClient client(address);
  MUSTER_ASSIGN_OR_RETURN(const auto plan, client.PlanTopology(request));
  if (!global.for_people()) {
    WriteReport(std::cout, global.output, PlanWithChangesJson(plan));
    return absl::OkStatus();
  }
  if (plan.changes_size() > 0) {
    std::cout << ChangeTable(plan);
    return absl::OkStatus();
  }
  MUSTER_ASSIGN_OR_RETURN(const auto workers, client.ListWorkers());
  PrintTopologies(plan, workers);
  return absl::OkStatus();
}

}  // namespace muster::ctl
