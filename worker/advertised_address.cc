#include "worker/advertised_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace muster {
namespace {

// The local end of a datagram socket that is connected to `peer`; nothing is sent. Empty when there
// is no way.
std::string LocalHostTowards(const addrinfo& peer) {
  const int fd = socket(peer.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return "";
  sockaddr_storage local{};
  socklen_t size = sizeof(local);
  auto* const address = reinterpret_cast<sockaddr*>(&local);
  std::array<char, NI_MAXHOST> host{};
  const bool found =
      connect(fd, peer.ai_addr, peer.ai_addrlen) == 0 && getsockname(fd, address, &size) == 0 &&
      getnameinfo(address, size, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST) == 0;
  close(fd);
  return found ? host.data() : "";
}

std::string HostTowards(const ListenAddress& peer) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(peer.host.c_str(), std::to_string(peer.port).c_str(), &hints, &found) != 0) {
    return "";
  }
  std::string host = LocalHostTowards(*found);
  freeaddrinfo(found);
  return host;
}

std::string MachineName() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

}  // namespace

std::string AdvertisedAddress(const ListenAddress& listen, const std::string& coordinator) {
  if (listen.host != "0.0.0.0" && listen.host != "::") return listen.ToString();
  ListenAddress advertised{.port = listen.port};
  if (const auto peer = ParseListenAddress(coordinator); peer.ok()) {
    advertised.host = HostTowards(*peer);
  }
  if (advertised.host.empty()) advertised.host = MachineName();
  return advertised.ToString();
}

}  // namespace muster
