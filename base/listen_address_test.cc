#include "base/listen_address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

TEST(ListenAddress, ReadsAndWritesWhatPeopleWrite) {
  const struct {
    const char* text;
    const char* host;
    int port;
  } cases[] = {
      {"127.0.0.1:7600", "127.0.0.1", 7600}, {"localhost:0", "localhost", 0},
      {"[::1]:65535", "::1", 65535},         {"[fe80::1%eth0]:80", "fe80::1%eth0", 80},
      {"0.0.0.0:1", "0.0.0.0", 1},           {"gpu-3.cluster:8080", "gpu-3.cluster", 8080}};
  for (const auto& c : cases) {
    ASSERT_OK_AND_ASSIGN(const ListenAddress address, ParseListenAddress(c.text));
    EXPECT_EQ(address.host, c.host);
    EXPECT_EQ(address.port, c.port);
    EXPECT_EQ(address.ToString(), c.text);
  }
}

TEST(ListenAddress, RefusesEverythingElse) {
  for (const char* text : {"",
                           ":",
                           ":7600",
                           "127.0.0.1",
                           "127.0.0.1:",
                           "127.0.0.1:port",
                           "127.0.0.1:65536",
                           "127.0.0.1:-1",
                           "127.0.0.1:-0",
                           "127.0.0.1:+80",
                           "127.0.0.1: 80",
                           "127.0.0.1:80 ",
                           "127.0.0.1:99999999999",
                           "127.0.0.1:0x50",
                           "::1:7600",
                           "::1",
                           "[]:7600",
                           "[::1]",
                           "[::1:80",
                           "::1]:80",
                           "[::1]]:80",
                           "[[::1]]:80",
                           "[::1]x:80",
                           "a host:80",
                           "host\n:80"}) {
    EXPECT_STATUS(ParseListenAddress(text), absl::StatusCode::kInvalidArgument,
                  "is not host:port, such as 127.0.0.1:7600 or [::1]:0")
        << "'" << text << "'";
  }
}

TEST(ListenAddress, OnlyLoopbackStaysOnThisMachine) {
  for (const char* host : {"127.0.0.1", "127.255.0.9", "::1", "localhost"}) {
    EXPECT_TRUE(IsLoopback({.host = host})) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "12.7.0.0", "127.evil.example",
                           "127.0.0.1.example", "localhost.example", "::2", ""}) {
    EXPECT_FALSE(IsLoopback({.host = host})) << host;
  }
}

// A port of the loopback that somebody listens on.
class TakenPort {
 public:
  TakenPort() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(fd_, generic, size), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    EXPECT_EQ(getsockname(fd_, generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~TakenPort() { close(fd_); }
  TakenPort(const TakenPort&) = delete;
  TakenPort& operator=(const TakenPort&) = delete;

  int port() const { return port_; }

 private:
  const int fd_;
  int port_ = 0;
};

TEST(ExplainListenFailure, SaysThatAnotherProcessHoldsThePort) {
  const TakenPort taken;
  const ListenAddress address{.host = "127.0.0.1", .port = taken.port()};
  EXPECT_STATUS(ExplainListenFailure(address), absl::StatusCode::kUnavailable,
                "cannot listen on " + address.ToString() + ": address in use by another process");
}

TEST(ExplainListenFailure, SaysThatTheAddressIsElsewhere) {
  // 192.0.2.0/24 is set aside for documents (RFC 5737).
  EXPECT_STATUS(ExplainListenFailure({.host = "192.0.2.1", .port = 0}),
                absl::StatusCode::kUnavailable,
                "cannot listen on 192.0.2.1:0: this machine has no such address");
}

TEST(ExplainListenFailure, SaysThatItWouldWorkNow) {
  EXPECT_STATUS(ExplainListenFailure({.host = "127.0.0.1", .port = 0}),
                absl::StatusCode::kUnavailable, "it was in use a moment ago; try again");
}

}  // namespace
}  // namespace muster
