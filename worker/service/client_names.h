// Under which names the engine knows the clients of one caller.
#ifndef MUSTER_WORKER_SERVICE_CLIENT_NAMES_H_
#define MUSTER_WORKER_SERVICE_CLIENT_NAMES_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/tls_identity.h"

namespace grpc {
class ServerContextBase;
}  // namespace grpc

namespace muster {

// What a client calls itself is within its certificate's name: "c1" of scheduler/chat is
// "scheduler/chat:c1", so that nobody reaches another's sequences, leases or recorded answers by
// using its client id. A name has no ':', so the first one in an id ends it. On plaintext ports the
// id stands alone.
class ClientNames {
 public:
  explicit ClientNames(const grpc::ServerContextBase& context);

  // The engine's name of the client that calls itself `client_id`, which may be empty and stays so.
  // INVALID_ARGUMENT when it leaves no room for the certificate's name.
  absl::StatusOr<std::string> Of(const std::string& client_id) const;

 private:
  std::string prefix_;  // "scheduler/chat:", or empty
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_CLIENT_NAMES_H_
