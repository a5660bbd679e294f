// `musterctl status`: who holds which rank, and how they are.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_json.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

constexpr int kBarWidth = 8;

std::string Since(const google::protobuf::Timestamp& time) {
  const absl::Time then = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  return HumanDuration(absl::Now() - then);
}

// "epoch 7   tp=2 cp=2   serving 3 h 12 min"
std::string Headline(const v1::ReplicaStatus& replica, const v1::ParallelConfig& wanted) {
  const bool planned = replica.has_topology();
  const v1::ParallelConfig& config = planned ? replica.topology().config() : wanted;
  std::string line = planned ? absl::StrCat("epoch ", replica.topology().epoch(), "   ") : "";
  absl::StrAppend(&line, ParallelSizes(config), "   ");
  if (replica.state() == v1::REPLICA_STATE_SERVING && replica.has_serving_since()) {
    return absl::StrCat(line, "serving ", Since(replica.serving_since()));
  }
  return absl::StrCat(line, StateName(replica.state()));
}

std::string KvUsed(const v1::WorkerStatus& worker) {
  if (worker.kv_blocks_total() == 0) return "-";
  const double fraction =
      static_cast<double>(worker.kv_blocks_used()) / static_cast<double>(worker.kv_blocks_total());
  return absl::StrFormat("%s %3.0f %%", Bar(fraction, kBarWidth), 100 * fraction);
}

std::vector<std::string> Row(const v1::WorkerStatus& worker) {
  const std::string rank = worker.has_rank() ? absl::StrCat(worker.rank()) : "-";
  const bool leader = worker.has_rank() && worker.rank() == 0;
  const bool standby = !worker.has_rank() && worker.state() == v1::WORKER_STATE_ENLISTED;
  return {rank,
          leader ? "*" : "",
          worker.worker_id(),
          DeviceName(worker.device()),
          standby ? "STANDBY" : StateName(worker.state()),
          worker.step() == 0 ? "-" : WithCommas(worker.step()),
          KvUsed(worker),
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

void PrintWorkers(std::vector<const v1::WorkerStatus*> workers) {
  if (workers.empty()) return;
  std::sort(workers.begin(), workers.end(), [](const auto* a, const auto* b) {
    return std::make_pair(!a->has_rank(), a->rank()) < std::make_pair(!b->has_rank(), b->rank());
  });
  Table table = WorkerTable();
  for (const auto* worker : workers) table.AddRow(Row(*worker));
  std::cout << table.ToString();
}

void Print(const v1::GetTopologyResponse& topology, const v1::ListWorkersResponse& workers,
           const std::string& coordinator) {
  const int count = topology.replicas_size();
  std::cout << absl::StrCat("FLEET  ", Count(count, "replica"), "   ",
                            Count(workers.workers_size(), "worker"), "   coordinator ", coordinator,
                            " (term ", topology.term(), ")\n");
  std::map<uint32_t, std::vector<const v1::WorkerStatus*>> by_replica;
  std::vector<const v1::WorkerStatus*> standby;
  for (const auto& worker : workers.workers()) {
    (worker.has_replica() ? by_replica[worker.replica()] : standby).push_back(&worker);
  }
  for (const auto& replica : topology.replicas()) {
    std::cout << absl::StrCat("\nREPLICA ", replica.replica(), "  ",
                              Headline(replica, topology.config()), "\n");
    if (replica.has_failure() && replica.state() != v1::REPLICA_STATE_SERVING) {
      std::cout << absl::StrCat("  ", replica.failure().message(), "\n");
    }
    PrintWorkers(by_replica[replica.replica()]);
  }
  if (!standby.empty()) {
    std::cout << "\nWITHOUT A RANK\n";
    PrintWorkers(standby);
  }
  std::cout << "\n* leader: the worker that schedulers call\n";
}

absl::Status RunStatus(const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.coordinator));
  const FleetClient client(address);
  MUSTER_ASSIGN_OR_RETURN(const auto topology, client.GetTopology());
  MUSTER_ASSIGN_OR_RETURN(const auto workers, client.ListWorkers());
  if (!global.json) {
    Print(topology, workers, client.address());
    return absl::OkStatus();
  }
  Json json = {{"coordinator", client.address()}, {"term", topology.term()}};
  json["config"] = ConfigJson(topology.config());
  json["replicas"] = Json::array();
  for (const auto& replica : topology.replicas()) {
    json["replicas"].push_back(ReplicaJson(replica));
  }
  json["workers"] = Json::array();
  for (const auto& worker : workers.workers()) json["workers"].push_back(WorkerJson(worker));
  std::cout << ToLine(json) << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  app.add_subcommand("status", "Show replicas, ranks and workers")->callback([&global, &chosen] {
    chosen = [&global] { return ExitStatus(RunStatus(global)); };
  });
}

}  // namespace muster::ctl
