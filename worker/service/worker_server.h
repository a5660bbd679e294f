// The worker's port, and what answers on it.
#ifndef MUSTER_WORKER_SERVICE_WORKER_SERVER_H_
#define MUSTER_WORKER_SERVICE_WORKER_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/listen_address.h"

namespace grpc {
class HealthCheckServiceInterface;
class Server;
class Service;
}  // namespace grpc

namespace muster {

class TlsCredentials;

// Health, reflection and the services given to it. Messages have at most 64 MiB.
class WorkerServer {
 public:
  // Listens from now on, in plaintext without `tls`; port 0 takes any free one. Where `unix_socket`
  // names a path, it listens there as well, always in plaintext. UNAVAILABLE says why it cannot
  // listen; other errors are those of PrepareUnixSocket.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(
      const ListenAddress& listen, std::vector<std::shared_ptr<grpc::Service>> services,
      const std::string& unix_socket = "", const TlsCredentials* tls = nullptr);
  // As Stop(0).
  ~WorkerServer();

  // With the port that was taken.
  const ListenAddress& address() const { return address_; }
  // Lives as long as this.
  grpc::HealthCheckServiceInterface* health() const;

  // Takes no calls any more, removes the Unix socket, and cancels the calls that have not ended
  // within `grace`. Whoever answers them must do so.
  void Stop(absl::Duration grace);

 private:
  WorkerServer(ListenAddress address, std::vector<std::shared_ptr<grpc::Service>> services,
               std::unique_ptr<grpc::Server> server);

  const ListenAddress address_;
  const std::vector<std::shared_ptr<grpc::Service>> services_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_SERVER_H_
