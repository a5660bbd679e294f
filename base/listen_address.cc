#include "base/listen_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace muster {
namespace {

// errno of a try to listen, 0 when it went well.
int TryToListen(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listens = bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int error = listens ? 0 : errno;
  close(fd);
  return error;
}

std::string Reason(int error) {
  switch (error) {
    case 0:
      return "it was in use a moment ago; try again";
    case EADDRINUSE:
      return "address in use by another process; choose another port, or 0 for any free one";
    case EADDRNOTAVAIL:
      return "this machine has no such address";
    case EACCES:
      return "not permitted; ports below 1024 need privileges";
    default:
      return std::strerror(error);
  }
}

bool ParsePort(absl::string_view text, int* port) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, port) && *port <= 65535;
}

bool IsHost(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isgraph(c) && c != '[' && c != ']';
  });
}

}  // namespace

std::string ListenAddress::ToString() const {
  if (absl::StrContains(host, ':')) return absl::StrCat("[", host, "]:", port);
  return absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const size_t colon = std::min(text.rfind(':'), text.size());
  absl::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const bool one_meaning = bracketed || !absl::StrContains(host, ':');
  ListenAddress address{.host = std::string(host)};
  if (IsHost(host) && one_meaning && colon < text.size() &&
      ParsePort(text.substr(colon + 1), &address.port)) {
    return address;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not host:port, such as 127.0.0.1:7600 or [::1]:0"));
}

bool IsLoopback(const ListenAddress& address) {
  in_addr v4{};
  if (inet_pton(AF_INET, address.host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  return address.host == "::1" || address.host == "localhost";
}

absl::Status ExplainListenFailure(const ListenAddress& address) {
  const std::string what = absl::StrCat("cannot listen on ", address.ToString(), ": ");
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0) return absl::UnavailableError(absl::StrCat(what, gai_strerror(error)));
  const int reason = TryToListen(*found);
  freeaddrinfo(found);
  return absl::UnavailableError(absl::StrCat(what, Reason(reason)));
}

}  // namespace muster
