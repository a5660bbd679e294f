// `musterctl status`: who holds which rank, and how they are.
#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/wire_json.h"
#include "base/wire_operation_json.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/fleet_text.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

constexpr int kBarWidth = 8;

std::vector<std::string> Row(const v1::WorkerStatus& worker) {
  const std::string rank = worker.has_rank() ? absl::StrCat(worker.rank()) : "-";
  const bool leader = worker.has_rank() && worker.rank() == 0;
  return {rank,
          leader ? "*" : "",
          worker.worker_id(),
          DeviceName(worker.device()),
          WorkerStateName(worker),
          worker.step() == 0 ? "-" : WithCommas(worker.step()),
          KvUsed(worker.kv_blocks_used(), worker.kv_blocks_total(), kBarWidth),
          HumanDuration(absl::Milliseconds(Milliseconds(worker.heartbeat_age())))};
}

Table WorkerTable() {
  return Table({{"RANK"},
                {""},
                {"WORKER"},
                {"DEVICE"},
                {"STATE"},
                {"STEP", Table::Align::kRight},
                {"KV USED"},
                {"HEARTBEAT", Table::Align::kRight}});
}

void PrintWorkers(const std::vector<const v1::WorkerStatus*>& workers) {
  if (workers.empty()) return;
  Table table = WorkerTable();
  for (const auto* worker : workers) table.AddRow(Row(*worker));
  std::cout << table.ToString();
}

// What changes the fleet now, and what did last; where something did.
void PrintOperations(const v1::ListOperationsResponse& operations) {
  const absl::Time now = absl::Now();
  if (const auto last = LastResize(operations, now)) std::cout << *last << "\n";
  if (const auto* running = RunningOperation(operations)) {
    std::cout << RunningLine(*running, now) << "\n";
  }
}

void Print(const v1::GetTopologyResponse& topology, const v1::ListWorkersResponse& workers,
           const v1::ListOperationsResponse& operations, const std::string& coordinator) {
  const int count = topology.replicas_size();
  std::cout << absl::StrCat("FLEET  ", Count(count, "replica"), "   ",
                            Count(workers.workers_size(), "worker"), "   coordinator ", coordinator,
                            " (term ", topology.term(), ")\n");
  WorkerGroups groups = GroupWorkers(workers);
  for (const auto& replica : topology.replicas()) {
    std::cout << absl::StrCat("\nREPLICA ", replica.replica(), "  ",
                              ReplicaHeadline(replica, topology.config()), "\n");
    if (replica.has_failure() && replica.state() != v1::REPLICA_STATE_SERVING) {
      std::cout << absl::StrCat("  ", replica.failure().message(), "\n");
    }
    PrintWorkers(groups.by_replica[replica.replica()]);
  }
  if (!groups.without_rank.empty()) {
    std::cout << "\nWITHOUT A RANK\n";
    PrintWorkers(groups.without_rank);
  }
  std::cout << "\n* leader: the worker that schedulers call\n";
  PrintOperations(operations);
}

absl::Status RunStatus(const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  const FleetClient client(address);
  MUSTER_ASSIGN_OR_RETURN(const auto topology, client.GetTopology());
  MUSTER_ASSIGN_OR_RETURN(const auto workers, client.ListWorkers());
  // A coordinator that knows no operations runs none.
  const auto operations = client.ListOperations().value_or(v1::ListOperationsResponse());
  if (global.for_people()) {
    Print(topology, workers, operations, client.address());
    return absl::OkStatus();
  }
  Json json = {{"coordinator", client.address()}, {"term", topology.term()}};
  json["config"] = ConfigJson(topology.config());
  json["replicas"] = Json::array();
  for (const auto& replica : topology.replicas()) {
    json["replicas"].push_back(ReplicaJson(replica));
  }
  json["operations"] = OperationsJson(operations)["operations"];
  json["workers"] = Json::array();
  for (const auto& worker : workers.workers()) json["workers"].push_back(WorkerJson(worker));
  WriteReport(std::cout, global.output, json);
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  app.add_subcommand("status", "Show replicas, ranks and workers")->callback([&global, &chosen] {
    chosen = [&global] { return ExitStatus(RunStatus(global)); };
  });
}

}  // namespace muster::ctl
