#include "client/ctl/port_probe.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

// Listens on a port of this machine.
class Listener {
 public:
  Listener() : descriptor_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(descriptor_, generic, size), 0);
    EXPECT_EQ(listen(descriptor_, 1), 0);
    EXPECT_EQ(getsockname(descriptor_, generic, &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~Listener() { close(descriptor_); }

  // What a probe says of a server that answers `bytes` and hangs up.
  PortKind ProbeAnswering(absl::string_view bytes) const {
    std::thread server([this, bytes] {
      const int connection = accept(descriptor_, nullptr, nullptr);
      char preface[33];
      EXPECT_EQ(recv(connection, preface, sizeof(preface), MSG_WAITALL), 33);
      EXPECT_EQ(send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(bytes.size()));
      close(connection);
    });
    const PortKind kind = ProbePort(address_, kPatience);
    server.join();
    return kind;
  }
  const std::string& address() const { return address_; }

 private:
  const int descriptor_;
  std::string address_;
};

TEST(PortProbeTest, SettingsAreTheAnswerOfAServerWithoutTls) {
  EXPECT_EQ(Listener().ProbeAnswering(absl::string_view("\0\0\0\4\0\0\0\0\0", 9)),
            PortKind::kPlaintext);
}

TEST(PortProbeTest, AServerWithTlsHangsUpOrSendsAnAlert) {
  EXPECT_EQ(Listener().ProbeAnswering(""), PortKind::kEncrypted);
  EXPECT_EQ(Listener().ProbeAnswering(absl::string_view("\x15\x03\x01\0\2\2\x46", 7)),
            PortKind::kEncrypted);
}

TEST(PortProbeTest, WhereNobodyListensNothingIsKnown) {
  std::string address;
  {
    const Listener listener;
    address = listener.address();
  }
  EXPECT_EQ(ProbePort(address, kPatience), PortKind::kUnknown);
  EXPECT_EQ(ProbePort("unix:/tmp/socket", kPatience), PortKind::kUnknown);
}

TEST(PortProbeTest, AServerThatSaysNothingIsGivenUp) {
  const Listener listener;
  EXPECT_EQ(ProbePort(listener.address(), absl::Milliseconds(20)), PortKind::kUnknown);
}

}  // namespace
}  // namespace muster::ctl
