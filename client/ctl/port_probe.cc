#include "client/ctl/port_probe.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/listen_address.h"

namespace muster::ctl {
namespace {

// RFC 9113, sections 3.4 and 4.1: the preface of a client, and a SETTINGS frame without settings.
constexpr absl::string_view kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
constexpr size_t kFrameHeader = 9;
constexpr char kSettings = 4;

// False where `events` do not come before `end`.
bool Await(int descriptor, short events, absl::Time end) {
  pollfd waiting = {descriptor, events, 0};
  while (true) {
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(end - absl::Now()));
    const int ready = poll(&waiting, 1, static_cast<int>(left));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

// A socket that is connected; -1 where there is none in time.
int Connect(const ListenAddress& address, absl::Time end) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found) != 0) {
    return -1;
  }
  const absl::Cleanup freed = [found] { freeaddrinfo(found); };
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    const int descriptor =
        socket(entry->ai_family, entry->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    const bool begun = connect(descriptor, entry->ai_addr, entry->ai_addrlen) == 0 ||
                       (errno == EINPROGRESS && Await(descriptor, POLLOUT, end));
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
    if (begun && error == 0) return descriptor;
    close(descriptor);
  }
  return -1;
}

}  // namespace

PortKind ProbePort(const std::string& address, absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  const auto parsed = ParseListenAddress(address);
  const int descriptor = parsed.ok() ? Connect(*parsed, end) : -1;
  if (descriptor < 0) return PortKind::kUnknown;
  const absl::Cleanup closed = [descriptor] { close(descriptor); };
  if (send(descriptor, kPreface.data(), kPreface.size(), MSG_NOSIGNAL) < 0) {
    return PortKind::kUnknown;
  }
  std::array<char, kFrameHeader> header = {};
  size_t filled = 0;
  while (filled < header.size()) {
    if (!Await(descriptor, POLLIN, end)) return PortKind::kUnknown;
    const ssize_t count = recv(descriptor, header.data() + filled, header.size() - filled, 0);
    // It hangs up, or says in TLS what it thinks of this.
    if (count <= 0) return PortKind::kEncrypted;
    filled += static_cast<size_t>(count);
  }
  return header[3] == kSettings ? PortKind::kPlaintext : PortKind::kEncrypted;
}

}  // namespace muster::ctl
