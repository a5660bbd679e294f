// A caller of the admin port that sends whatever bytes it is told to.
#ifndef MUSTER_BASE_ADMIN_TEST_CALLER_H_
#define MUSTER_BASE_ADMIN_TEST_CALLER_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/admin/owned_fd.h"
#include "base/listen_address.h"

namespace muster {

class TestCaller {
 public:
  explicit TestCaller(const ListenAddress& server) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(server.port)};
    inet_pton(AF_INET, server.host.c_str(), &address.sin_addr);
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    // No test waits for ever for a server that does not answer.
    const timeval longest{.tv_sec = 30};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof(longest));
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof(longest));
  }

  // False when the server no longer takes anything.
  bool TrySend(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  void Send(absl::string_view bytes) { EXPECT_TRUE(TrySend(bytes)); }

  // What comes until the server closes the connection, in order or not.
  std::string ReadAll() {
    std::string all;
    char bytes[65536];
    while (true) {
      const ssize_t n = recv(fd_.get(), bytes, sizeof(bytes), 0);
      if (n <= 0) {
        EXPECT_TRUE(n == 0 || errno == ECONNRESET) << "the server did not close the connection";
        return all;
      }
      all.append(bytes, static_cast<size_t>(n));
    }
  }

  // True when the server has ended the connection, at the latest after `wait`.
  bool ClosedWithin(absl::Duration wait) {
    pollfd polled{.fd = fd_.get(), .events = POLLIN};
    return poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(wait))) > 0;
  }
  // The same, though there is something to read.
  bool ResetWithin(absl::Duration wait) {
    pollfd polled{.fd = fd_.get(), .events = POLLRDHUP};
    return poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(wait))) > 0;
  }

 private:
  OwnedFd fd_;
};

inline int CountOf(absl::string_view text, absl::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != absl::string_view::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_TEST_CALLER_H_
