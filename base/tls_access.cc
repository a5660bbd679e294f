#include "base/tls_access.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace muster {
namespace {

constexpr auto kWorker = TlsRole::kWorker;
constexpr auto kScheduler = TlsRole::kScheduler;
constexpr auto kOperator = TlsRole::kOperator;
constexpr auto kCoordinator = TlsRole::kCoordinator;

constexpr TlsRoles kWorkers = TlsRoles::Of(kWorker);
constexpr TlsRoles kTheCoordinator = TlsRoles::Of(kCoordinator);
constexpr TlsRoles kClients = TlsRoles::Of(kScheduler, kOperator);
constexpr TlsRoles kOperators = TlsRoles::Of(kOperator);
constexpr TlsRoles kEverybody = TlsRoles::Of(kWorker, kScheduler, kOperator, kCoordinator);

constexpr absl::string_view kMembership = "muster.v1.Membership";
constexpr absl::string_view kRendezvous = "muster.v1.Rendezvous";
constexpr absl::string_view kFleet = "muster.v1.Fleet";
constexpr absl::string_view kWorkerControl = "muster.v1.WorkerControl";
constexpr absl::string_view kInference = "muster.v1.Inference";
constexpr absl::string_view kTrace = "muster.v1.Trace";
constexpr absl::string_view kHealth = "grpc.health.v1.Health";
constexpr absl::string_view kReflection = "grpc.reflection.v1alpha.ServerReflection";
constexpr absl::string_view kChannelz = "grpc.channelz.v1.Channelz";

constexpr MethodAccess kAccess[] = {
    {kMembership, "Enlist", kWorkers},
    {kRendezvous, "AllGather", kWorkers},
    {kRendezvous, "Publish", kWorkers},
    {kRendezvous, "Await", kWorkers},
    {kFleet, "GetTopology", kClients},
    {kFleet, "WatchTopology", kClients},
    {kFleet, "PlanTopology", kClients},
    {kFleet, "ListOperations", kClients},
    {kFleet, "ListWorkers", kClients},
    {kFleet, "WatchEvents", kClients},
    {kFleet, "ScaleContextParallel", kOperators},
    {kFleet, "ApplyTopology", kOperators},
    {kFleet, "DrainWorker", kOperators},
    {kFleet, "CancelOperation", kOperators},
    {kWorkerControl, "Assign", kTheCoordinator},
    {kWorkerControl, "Load", kTheCoordinator},
    {kWorkerControl, "Warmup", kTheCoordinator},
    {kWorkerControl, "Capture", kTheCoordinator},
    {kWorkerControl, "Activate", kTheCoordinator},
    {kWorkerControl, "Drain", kTheCoordinator},
    {kWorkerControl, "Release", kTheCoordinator},
    {kWorkerControl, "GetStatus", kTheCoordinator},
    {kWorkerControl, "DescribeCache", kTheCoordinator},
    {kWorkerControl, "MeasureDevice", TlsRoles::Of(kOperator, kCoordinator)},
    {kInference, "Forward", kClients},
    {kInference, "ForwardStream", kClients},
    {kInference, "ForkSequence", kClients},
    {kInference, "FreeSequences", kClients},
    {kInference, "GetCapacity", kClients},
    {kInference, "WatchCapacity", kClients},
    {kInference, "GetModel", kClients},
    {kTrace, "ReadClock", kOperators},
    {kTrace, "Collect", kOperators},
    {kHealth, "Check", kEverybody},
    {kHealth, "Watch", kEverybody},
    {kReflection, "ServerReflectionInfo", kOperators},
    {kChannelz, "GetTopChannels", kOperators},
    {kChannelz, "GetServers", kOperators},
    {kChannelz, "GetServer", kOperators},
    {kChannelz, "GetServerSockets", kOperators},
    {kChannelz, "GetChannel", kOperators},
    {kChannelz, "GetSubchannel", kOperators},
    {kChannelz, "GetSocket", kOperators},
};

bool IsAt(const MethodAccess& entry, absl::string_view path) {
  return path.size() == entry.service.size() + entry.method.size() + 2 && path[0] == '/' &&
         path.substr(1, entry.service.size()) == entry.service &&
         path[1 + entry.service.size()] == '/' &&
         path.substr(2 + entry.service.size()) == entry.method;
}

}  // namespace

std::string TlsRoles::Names() const {
  std::vector<const char*> names;
  for (const TlsRole role : {kWorker, kScheduler, kOperator, kCoordinator}) {
    if (Has(role)) names.push_back(TlsRoleName(role));
  }
  return absl::StrJoin(names, ", ");
}

absl::Span<const MethodAccess> AccessTable() { return kAccess; }

absl::Status CheckAccess(absl::string_view path, const TlsIdentity& caller) {
  const auto* entry = std::find_if(std::begin(kAccess), std::end(kAccess),
                                   [path](const MethodAccess& it) { return IsAt(it, path); });
  if (entry == std::end(kAccess)) {
    return absl::PermissionDeniedError(
        absl::StrCat(caller.Name(), " may not call this method: nobody may"));
  }
  if (entry->roles.Has(caller.role)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(caller.Name(), " may not call ", entry->service, ".", entry->method,
                   "; certificates that may are those of: ", entry->roles.Names()));
}

}  // namespace muster
