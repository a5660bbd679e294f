#include "client/ctl/topology_picture.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

std::map<std::string, const v1::WorkerStatus*> ById(const v1::ListWorkersResponse& workers) {
  std::map<std::string, const v1::WorkerStatus*> by_id;
  for (const auto& worker : workers.workers()) by_id[worker.worker_id()] = &worker;
  return by_id;
}

// The piece of the bracket on a group's line `index` of `size`, and the name on its middle line.
std::string Bracket(uint32_t index, uint32_t size, const char* name) {
  if (size == 1) return "";
  const char* piece = index == 0 ? " ─┐" : index + 1 == size ? " ─┘" : "  │";
  return absl::StrCat(piece, " ", index == (size - 1) / 2 ? name : "  ");
}

// "heads 0-2", those of tp rank `tp_rank`.
std::string Heads(const v1::ModelSpec& model, uint32_t tp, uint32_t tp_rank) {
  const uint32_t heads = model.heads() / tp;
  if (tp == 1 || heads == 0) return "";
  const uint32_t first = tp_rank * heads;
  return heads == 1 ? absl::StrCat("head ", first)
                    : absl::StrCat("heads ", first, "-", first + heads - 1);
}

// "KV blocks 1 3 5 ..", those of cp rank `cp_rank`.
std::string Blocks(uint32_t cp, uint32_t cp_rank) {
  if (cp == 1) return "all KV blocks";
  return absl::StrCat("KV blocks ", cp_rank, " ", cp_rank + cp, " ", cp_rank + 2 * cp, " ..");
}

// "CP [0,3] [1,4] [2,5]": the groups that the brackets do not show.
std::string CpGroups(const v1::Topology& topology) {
  std::string line = "CP";
  for (const auto& group : topology.groups()) {
    if (group.kind() != v1::GROUP_KIND_CP) continue;
    absl::StrAppend(&line, " [", absl::StrJoin(group.ranks(), ","), "]");
  }
  return line;
}

}  // namespace

std::string TopologyPicture(const v1::Topology& topology, const v1::ListWorkersResponse& workers,
                            int indent) {
  const std::string margin(indent, ' ');
  const uint32_t tp = std::max(1u, topology.config().tp());
  const uint32_t cp = std::max(1u, topology.config().cp());
  const uint32_t size = tp > 1 ? tp : cp;
  const auto by_id = ById(workers);
  std::vector<std::string> names, places, shares;
  int name_width = 0, place_width = 0, heads_width = 0;
  for (const auto& rank : topology.ranks()) {
    const auto worker = by_id.find(rank.worker_id());
    const bool known = worker != by_id.end();
    names.push_back(absl::StrCat("rank ", rank.rank()));
    places.push_back(rank.worker_id());
    if (known) absl::StrAppend(&places.back(), "  ", DeviceName(worker->second->device()));
    shares.push_back(known ? Heads(worker->second->model(), tp, rank.tp_rank()) : "");
    name_width = std::max(name_width, DisplayWidth(names.back()));
    place_width = std::max(place_width, DisplayWidth(places.back()));
    heads_width = std::max(heads_width, DisplayWidth(shares.back()));
  }
  std::string picture;
  for (int i = 0; i < topology.ranks_size(); ++i) {
    const auto& rank = topology.ranks(i);
    const uint32_t index = tp > 1 ? rank.tp_rank() : rank.cp_rank();
    absl::StrAppend(&picture, margin, PadRight(names[i], name_width), "  ",
                    PadRight(places[i], place_width), Bracket(index, size, tp > 1 ? "TP" : "CP"),
                    "   ");
    if (heads_width > 0) absl::StrAppend(&picture, PadRight(shares[i], heads_width), "  ");
    absl::StrAppend(&picture, Blocks(cp, rank.cp_rank()), "\n");
  }
  if (tp > 1 && cp > 1) absl::StrAppend(&picture, margin, CpGroups(topology), "\n");
  return picture;
}

std::string ParallelSizes(const v1::ParallelConfig& config) {
  std::string sizes = absl::StrCat("tp=", config.tp(), " cp=", config.cp());
  if (config.pp() > 1) absl::StrAppend(&sizes, " pp=", config.pp());
  return sizes;
}

std::string DeviceName(const v1::DeviceReport& device) {
  return absl::StrCat(device.kind(), ":", device.ordinal());
}

}  // namespace muster::ctl
