#include "client/ctl/fleet_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/wire_json.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

std::string Since(const google::protobuf::Timestamp& time) {
  const absl::Time then = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  return HumanDuration(absl::Now() - then);
}

}  // namespace

std::string ReplicaHeadline(const v1::ReplicaStatus& replica, const v1::ParallelConfig& wanted) {
  const bool planned = replica.has_topology();
  const v1::ParallelConfig& config = planned ? replica.topology().config() : wanted;
  std::string line = planned ? absl::StrCat("epoch ", replica.topology().epoch(), "   ") : "";
  absl::StrAppend(&line, ParallelSizes(config), "   ");
  if (replica.state() == v1::REPLICA_STATE_SERVING && replica.has_serving_since()) {
    return absl::StrCat(line, "serving ", Since(replica.serving_since()));
  }
  return absl::StrCat(line, StateName(replica.state()));
}

std::string WorkerStateName(const v1::WorkerStatus& worker) {
  const bool standby = !worker.has_rank() && worker.state() == v1::WORKER_STATE_ENLISTED;
  if (standby) return worker.drained() ? "DRAINED" : "STANDBY";
  return StateName(worker.state());
}

std::string KvUsed(uint64_t used, uint64_t total, int width) {
  if (total == 0) return "-";
  const double fraction = static_cast<double>(used) / static_cast<double>(total);
  return absl::StrFormat("%s %3.0f %%", Bar(fraction, width), 100 * fraction);
}

WorkerGroups GroupWorkers(const v1::ListWorkersResponse& workers) {
  WorkerGroups groups;
  for (const auto& worker : workers.workers()) {
    (worker.has_replica() ? groups.by_replica[worker.replica()] : groups.without_rank)
        .push_back(&worker);
  }
  for (auto& [replica, members] : groups.by_replica) {
    std::stable_sort(members.begin(), members.end(), [](const auto* a, const auto* b) {
      return std::make_pair(!a->has_rank(), a->rank()) < std::make_pair(!b->has_rank(), b->rank());
    });
  }
  return groups;
}

}  // namespace muster::ctl
