#include "base/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr absl::string_view kScheme = "unix:";
constexpr size_t kMaxAddressBytes = 128;

// Others would have to be escaped in an address.
bool IsPathCharacter(char c) {
  return absl::ascii_isalnum(c) || absl::StrContains("/-_.~!$&'()*+,;=:@", c);
}

bool IsAbsolutePath(absl::string_view path) {
  return absl::StartsWith(path, "/") && std::all_of(path.begin(), path.end(), IsPathCharacter);
}

absl::Status CannotListen(const std::string& path, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", path, ": ", why));
}

absl::Status CheckDirectory(const std::string& path) {
  const std::string directory = path.substr(0, std::max<size_t>(path.rfind('/'), 1));
  struct stat found {};
  if (stat(directory.c_str(), &found) != 0) {
    return CannotListen(path, absl::StrCat(directory, ": ", std::strerror(errno),
                                           "; make it by `mkdir -m 700 ", directory, "`"));
  }
  if (!S_ISDIR(found.st_mode)) {
    return CannotListen(path, absl::StrCat(directory, " is no directory"));
  }
  if (found.st_uid != geteuid()) {
    return CannotListen(path, absl::StrFormat("%s belongs to user %d, this process to user %d; "
                                              "name a directory of this user",
                                              directory, found.st_uid, geteuid()));
  }
  const unsigned mode = found.st_mode & 07777;
  if (mode != 0700) {
    return CannotListen(
        path, absl::StrFormat("%s has mode %04o, and must have 0700, since whoever reaches the "
                              "socket can read and change everything; `chmod 700 %s` does it",
                              directory, mode, directory));
  }
  return absl::OkStatus();
}

// errno of a try to connect, 0 when somebody listens.
int TryToConnect(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const bool connected = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  const int error = connected ? 0 : errno;
  close(fd);
  return error;
}

absl::Status RemoveWhatIsLeft(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return absl::OkStatus();
  if (!S_ISSOCK(found.st_mode)) {
    return CannotListen(path, "a file that is no socket has this name; remove it, or name another");
  }
  if (TryToConnect(path) != ECONNREFUSED) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", path, ": another process listens there; end it, or name another"));
  }
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return CannotListen(path, std::strerror(errno));
}

}  // namespace

std::string UnixAddress(absl::string_view path) { return absl::StrCat(kScheme, path); }

absl::Status CheckUnixPath(absl::string_view path) {
  if (path.size() > kMaxUnixPathBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the path of a socket has ", path.size(),
                                                   " bytes; it can have ", kMaxUnixPathBytes));
  }
  if (IsAbsolutePath(path) && path.back() != '/') return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", absl::CHexEscape(path),
                   "' is not the absolute path of a socket, of letters, digits and any of "
                   "/-_.~!$&'()*+,;=:@"));
}

absl::Status CheckLocalAddress(absl::string_view address) {
  if (address.empty()) return absl::OkStatus();
  if (address.size() > kMaxAddressBytes) {
    return absl::InvalidArgumentError(absl::StrCat("local address has ", address.size(),
                                                   " bytes; it can have ", kMaxAddressBytes));
  }
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, kScheme) && IsAbsolutePath(path)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("local address is '", absl::CHexEscape(address),
                                                 "'; it can be unix: and an absolute path"));
}

absl::Status PrepareUnixSocket(const std::string& path) {
  MUSTER_RETURN_IF_ERROR(CheckUnixPath(path));
  MUSTER_RETURN_IF_ERROR(CheckDirectory(path));
  return RemoveWhatIsLeft(path);
}

}  // namespace muster
