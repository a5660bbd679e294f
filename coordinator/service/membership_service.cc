#include "coordinator/service/membership_service.h"

#include <utility>

#include "base/tls_caller.h"
#include "base/wire_topology.h"
#include "coordinator/service/lease_stream.h"

namespace muster {

grpc::ServerBidiReactor<v1::EnlistRequest, v1::EnlistResponse>* MembershipService::Enlist(
    grpc::CallbackServerContext* context) {
  v1::Welcome welcome;
  *welcome.mutable_heartbeat_interval() = ToWire(options_.heartbeat_interval);
  return new LeaseStream(membership_, options_.term, std::move(welcome), CallerOf(*context));
}

}  // namespace muster
