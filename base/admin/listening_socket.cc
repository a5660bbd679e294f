#include "base/admin/listening_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <string>

namespace muster {
namespace {

constexpr int kBacklog = 1024;

struct FreeAddress {
  void operator()(addrinfo* address) const { freeaddrinfo(address); }
};

// All of the machine's names for `address`, or null.
std::unique_ptr<addrinfo, FreeAddress> Resolve(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  if (getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found) != 0) return nullptr;
  return std::unique_ptr<addrinfo, FreeAddress>(found);
}

OwnedFd Listen(const addrinfo& address) {
  OwnedFd fd(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.empty()) return fd;
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listens =
      bind(fd.get(), address.ai_addr, address.ai_addrlen) == 0 && listen(fd.get(), kBacklog) == 0;
  return listens ? std::move(fd) : OwnedFd();
}

int PortOf(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  if (bound.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port);
  return ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

}  // namespace

absl::StatusOr<ListeningSocket> ListeningSocket::Open(const ListenAddress& address) {
  const auto resolved = Resolve(address);
  OwnedFd fd = resolved == nullptr ? OwnedFd() : Listen(*resolved);
  if (fd.empty()) return ExplainListenFailure(address);
  ListenAddress bound{.host = address.host, .port = PortOf(fd.get())};
  return ListeningSocket(std::move(fd), std::move(bound));
}

OwnedFd ListeningSocket::Accept() const {
  return OwnedFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

}  // namespace muster
