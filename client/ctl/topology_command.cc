// `musterctl topology`: a picture of every replica.
#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/wire_json.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

void Print(const v1::ReplicaStatus& replica, const v1::ListWorkersResponse& workers) {
  if (!replica.has_topology()) {
    std::cout << absl::StrCat("REPLICA ", replica.replica(), "  ", StateName(replica.state()),
                              ", without a topology\n");
    if (replica.has_failure()) std::cout << "  " << replica.failure().message() << "\n";
    return;
  }
  const v1::Topology& topology = replica.topology();
  std::cout << absl::StrCat("REPLICA ", replica.replica(), "  epoch ", topology.epoch(), "   ",
                            ParallelSizes(topology.config()), "   ", StateName(replica.state()),
                            "\n\n", TopologyPicture(topology, workers, 2), "\n");
  Table groups({{"  GROUP"}, {"ID"}, {"RANKS"}});
  for (const auto& group : topology.groups()) {
    groups.AddRow({"  " + KindName(group.kind()), group.id(), absl::StrJoin(group.ranks(), " ")});
  }
  std::cout << groups.ToString();
}

absl::Status RunTopology(const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  const FleetClient client(address);
  MUSTER_ASSIGN_OR_RETURN(const auto topology, client.GetTopology());
  MUSTER_ASSIGN_OR_RETURN(const auto workers, client.ListWorkers());
  Json json = {{"term", topology.term()}, {"config", ConfigJson(topology.config())}};
  json["replicas"] = Json::array();
  bool first = true;
  for (const auto& replica : topology.replicas()) {
    json["replicas"].push_back(ReplicaJson(replica));
    if (!global.for_people()) continue;
    if (!first) std::cout << "\n";
    first = false;
    Print(replica, workers);
  }
  if (!global.for_people()) WriteReport(std::cout, global.output, json);
  return absl::OkStatus();
}

}  // namespace

void AddTopologyCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  app.add_subcommand("topology", "Draw ranks and groups")->callback([&global, &chosen] {
    chosen = [&global] { return ExitStatus(RunTopology(global)); };
  });
}

}  // namespace muster::ctl
