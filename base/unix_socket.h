// Sockets of the file system, by which the programs of one host reach each other.
#ifndef MUSTER_BASE_UNIX_SOCKET_H_
#define MUSTER_BASE_UNIX_SOCKET_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace muster {

// What the kernel has room for.
inline constexpr size_t kMaxUnixPathBytes = 107;

// "unix:PATH", as gRPC takes it.
std::string UnixAddress(absl::string_view path);

// OK for an absolute path that a socket can have and that its address can be written with: 107
// bytes of letters, digits and "/-_.~!$&'()*+,;=:@". INVALID_ARGUMENT says what is wrong.
absl::Status CheckUnixPath(absl::string_view path);

// OK for an address of a Unix socket that another process names, or none: "" or "unix:/..." of at
// most 128 bytes, of the same characters. INVALID_ARGUMENT.
absl::Status CheckLocalAddress(absl::string_view address);

// Makes sure that a server may bind to `path` and that nobody but this user can then reach it: its
// directory is this user's alone (mode 0700), and nothing is there but what a server left that is
// gone. INVALID_ARGUMENT (CheckUnixPath); FAILED_PRECONDITION names the path and what to do;
// UNAVAILABLE (another process listens there).
absl::Status PrepareUnixSocket(const std::string& path);

}  // namespace muster

#endif  // MUSTER_BASE_UNIX_SOCKET_H_
