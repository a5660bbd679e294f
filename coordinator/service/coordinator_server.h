#ifndef MUSTER_COORDINATOR_SERVICE_COORDINATOR_SERVER_H_
#define MUSTER_COORDINATOR_SERVICE_COORDINATOR_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/listen_address.h"
#include "base/tls_credentials.h"
#include "coordinator/coordinator.h"
#include "coordinator/service/fleet_service.h"
#include "coordinator/service/membership_service.h"
#include "coordinator/service/rendezvous_service.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace muster {

// A coordinator's services, health and reflection on one port.
class CoordinatorServer {
 public:
  struct Options {
    ListenAddress listen;
    std::shared_ptr<const TlsCredentials> tls;  // null for plaintext
    absl::Duration heartbeat_interval;          // what workers are asked for
  };
  // Serves from now on. UNAVAILABLE says why it cannot listen. `coordinator` outlives the server.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const Options& options,
                                                                  Coordinator& coordinator);
  // As Shutdown, without grace.
  ~CoordinatorServer();

  // Where it listens, with the port that the system chose.
  const ListenAddress& address() const { return address_; }

  // Ends the coordinator's leases and waits and then the calls, those that last longer than `grace`
  // by force. Returns when none is left.
  void Shutdown(absl::Duration grace);

 private:
  CoordinatorServer(const Options& options, Coordinator& coordinator);

  Coordinator& coordinator_;
  ListenAddress address_;
  MembershipService membership_;
  RendezvousService rendezvous_;
  FleetService fleet_;
  std::unique_ptr<grpc::Server> server_;  // null when it could not listen
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_COORDINATOR_SERVER_H_
