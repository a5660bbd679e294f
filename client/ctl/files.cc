#include "client/ctl/files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster::ctl {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 30;
constexpr size_t kPiece = size_t{1} << 16;

absl::Status Failed(absl::string_view verb, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", verb, " '", path, "'"));
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int descriptor = path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return Failed("read", path);
  const absl::Cleanup closed = [descriptor] { close(descriptor); };
  std::string bytes;
  while (true) {
    const size_t before = bytes.size();
    bytes.resize(before + kPiece);
    const ssize_t count = read(descriptor, bytes.data() + before, kPiece);
    if (count < 0 && errno != EINTR) return Failed("read", path);
    bytes.resize(before + static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count == 0) return bytes;
    if (bytes.size() > kMaxBytes) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "' is larger than 1 GiB"));
    }
  }
}

absl::StatusOr<PendingFile> PendingFile::Create(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    // A terminal, a pipe or /dev/null stays where it is.
    const int descriptor = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return Failed("write", path);
    return PendingFile(path, "", descriptor);
  }
  std::string draft = path + ".XXXXXX";
  const int descriptor = mkostemp(draft.data(), O_CLOEXEC);
  if (descriptor < 0) return Failed("write", path);
  // As any other file that this user makes; mkostemp allows nobody else.
  const mode_t mask = umask(0);
  umask(mask);
  fchmod(descriptor, 0666 & ~mask);
  return PendingFile(path, std::move(draft), descriptor);
}

PendingFile& PendingFile::operator=(PendingFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(draft_, other.draft_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

PendingFile::~PendingFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  if (!draft_.empty()) unlink(draft_.c_str());
}

absl::Status PendingFile::Commit(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) return Failed("write", path_);
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  }
  if (!draft_.empty() && rename(draft_.c_str(), path_.c_str()) != 0) return Failed("write", path_);
  close(std::exchange(descriptor_, -1));
  return absl::OkStatus();
}

}  // namespace muster::ctl
