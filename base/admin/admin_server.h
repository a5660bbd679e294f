#ifndef MUSTER_BASE_ADMIN_ADMIN_SERVER_H_
#define MUSTER_BASE_ADMIN_ADMIN_SERVER_H_

#include <list>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "base/admin/admin_connection.h"
#include "base/admin/admin_route.h"
#include "base/admin/listening_socket.h"
#include "base/admin/owned_fd.h"
#include "base/clock.h"
#include "base/listen_address.h"

namespace muster {

struct AdminLimits {
  ConnectionLimits connection;
  // At once. A caller above it takes the place of whoever has been idle longest, or failing that
  // of the oldest, so that silent connections cannot keep a probe out.
  size_t connections = 64;
};

// Answers GET and HEAD by plain HTTP/1.1, for probes, scrapers and people: read-only, bounded, and
// without an idea of what it serves. One thread polls all connections; none can hold it up.
class AdminServer {
 public:
  // Serves from now on. UNAVAILABLE says why it cannot listen. What `routes` and `clock` refer to
  // outlives the server.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const ListenAddress& listen,
                                                            AdminRoutes routes,
                                                            const AdminLimits& limits = {},
                                                            const Clock& clock = Clock::Real());
  // Closes all connections; waits for a route that is running.
  ~AdminServer();

  // Where it listens, with the port that the system chose.
  const ListenAddress& address() const { return socket_.address(); }

 private:
  using Connections = std::list<AdminConnection>;  // oldest first

  AdminServer(ListeningSocket socket, OwnedFd wake, AdminRoutes routes, const AdminLimits& limits,
              const Clock& clock);

  void Run();
  // False when the server is to end.
  bool WaitForWork();
  void AcceptAll();
  bool Serve(AdminConnection& connection, absl::Time now) const;
  void MakeRoom();
  AdminResponse Answer(const AdminRequest& request) const;
  int MillisecondsToNextDeadline() const;

  // Constant after construction.
  const ListeningSocket socket_;
  const OwnedFd wake_;  // readable when the server is to end
  const AdminRoutes routes_;
  const AdminLimits limits_;
  const Clock& clock_;

  // The server's thread only.
  Connections connections_;
  absl::Time accept_from_ = absl::InfinitePast();  // there were no descriptors left
  std::thread thread_;
};

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_ADMIN_SERVER_H_
