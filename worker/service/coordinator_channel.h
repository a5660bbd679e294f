#ifndef MUSTER_WORKER_SERVICE_COORDINATOR_CHANNEL_H_
#define MUSTER_WORKER_SERVICE_COORDINATOR_CHANNEL_H_

#include <memory>
#include <string>

namespace grpc {
class Channel;
}  // namespace grpc

namespace muster {

class TlsCredentials;

// A channel to the coordinator at `address`, "host:port". It connects when it is first used, again
// within about a second when the coordinator comes back, notices a peer that vanished without a
// word within seconds of writing to it, takes answers as large as a rendezvous of 1,024 ranks, and
// goes through no proxy. Plaintext without `tls`; with it, the other end must be a coordinator.
std::shared_ptr<grpc::Channel> ConnectCoordinator(const std::string& address,
                                                  const TlsCredentials* tls = nullptr);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_COORDINATOR_CHANNEL_H_
