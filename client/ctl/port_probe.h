// What listens at an address that could not be called.
#ifndef MUSTER_CLIENT_CTL_PORT_PROBE_H_
#define MUSTER_CLIENT_CTL_PORT_PROBE_H_

#include <string>

#include "absl/time/time.h"

namespace muster::ctl {

enum class PortKind {
  kUnknown,    // nothing, or nothing that answers in time
  kPlaintext,  // a gRPC server without TLS
  kEncrypted,  // something that hangs up on plaintext
};

// Connects to "host:port" and begins HTTP/2 in plaintext: a server without TLS answers with its
// settings. Takes at most `timeout`.
PortKind ProbePort(const std::string& address, absl::Duration timeout);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_PORT_PROBE_H_
