// "host:port" as people write it, and why it could not be listened on.
#ifndef MUSTER_BASE_LISTEN_ADDRESS_H_
#define MUSTER_BASE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;      // 0 to 65535; 0 lets the system choose

  // "127.0.0.1:7600", "[::1]:7600".
  std::string ToString() const;
};

// INVALID_ARGUMENT unless `text` is "host:port" or "[v6]:port".
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

// True when only this machine can reach the address: 127.0.0.0/8, ::1 or "localhost".
bool IsLoopback(const ListenAddress& address);

// Why nothing can listen on `address` now, by trying: "cannot listen on 127.0.0.1:7600: address in
// use ...". Never OK.
absl::Status ExplainListenFailure(const ListenAddress& address);

}  // namespace muster

#endif  // MUSTER_BASE_LISTEN_ADDRESS_H_
