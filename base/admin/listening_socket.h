#ifndef MUSTER_BASE_ADMIN_LISTENING_SOCKET_H_
#define MUSTER_BASE_ADMIN_LISTENING_SOCKET_H_

#include "absl/status/statusor.h"
#include "base/admin/owned_fd.h"
#include "base/listen_address.h"

namespace muster {

// A TCP socket that listens, without ever blocking.
class ListeningSocket {
 public:
  // UNAVAILABLE says why it cannot listen on `address`.
  static absl::StatusOr<ListeningSocket> Open(const ListenAddress& address);

  int fd() const { return fd_.get(); }
  // With the port that the system chose.
  const ListenAddress& address() const { return address_; }

  // The next connection, which does not block either; an empty one when none waits.
  OwnedFd Accept() const;

 private:
  ListeningSocket(OwnedFd fd, ListenAddress address)
      : fd_(std::move(fd)), address_(std::move(address)) {}

  OwnedFd fd_;
  ListenAddress address_;
};

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_LISTENING_SOCKET_H_
