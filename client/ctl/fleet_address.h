// Where the daemons of a fleet are, and how they are reached: in plaintext, or by TLS.
#ifndef MUSTER_CLIENT_CTL_FLEET_ADDRESS_H_
#define MUSTER_CLIENT_CTL_FLEET_ADDRESS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tls_credentials.h"

namespace grpc {
class Channel;
class Status;
}  // namespace grpc

namespace muster::ctl {

// --coordinator and --tls.
struct FleetFlags {
  std::string coordinator;  // "host:port"; empty: see FindCoordinator
  std::string tls;          // a folder as TlsCredentials::Open takes it; empty: see FindCoordinator
};

// Whose certificate is shown to daemons; without credentials it is plaintext.
struct FleetTls {
  std::string directory;
  std::shared_ptr<const TlsCredentials> credentials;

  // Of a folder; "" is plaintext. Errors: as of TlsCredentials::Open.
  static absl::StatusOr<FleetTls> Open(const std::string& directory);
  bool on() const { return credentials != nullptr; }
};

struct CoordinatorAddress {
  std::string address;  // "host:port"
  // Ends an error about it, e.g. " (recorded by the last `musterctl up`)"; may be empty.
  std::string origin;
  FleetTls tls;
};

struct WorkerAddress {
  std::string address;  // "host:port"
  // By TLS nobody else is talked to; empty: any worker.
  std::string worker_id;
  FleetTls tls;
};

// The coordinator is that of the flag, else of $MUSTER_COORDINATOR, else of the record of the last
// `musterctl up`; what is recorded has TLS where `up` had. --tls, or $MUSTER_TLS, comes first.
// Errors: NOT_FOUND (there is none; says what to do), and as of TlsCredentials::Open.
absl::StatusOr<CoordinatorAddress> FindCoordinator(const FleetFlags& flags);

// Connects when the first call is made.
std::shared_ptr<grpc::Channel> Connect(const CoordinatorAddress& coordinator);
std::shared_ptr<grpc::Channel> Connect(const WorkerAddress& worker);

// Why a call failed, in words of the command line. Where no daemon answered it, it is found out
// whether one end spoke TLS and the other did not.
absl::Status ExplainFailure(const grpc::Status& status, const CoordinatorAddress& coordinator);
absl::Status ExplainFailure(const grpc::Status& status, const WorkerAddress& worker);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FLEET_ADDRESS_H_
