// Files that a command reads and writes as a whole.
#ifndef MUSTER_CLIENT_CTL_FILES_H_
#define MUSTER_CLIENT_CTL_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster::ctl {

// The bytes of a file of at most 1 GiB; "-" is standard input. Errors name the file: as of the
// failed system call, INVALID_ARGUMENT (too large).
absl::StatusOr<std::string> ReadFile(const std::string& path);

// A file to be written once what belongs in it is known. It is opened at once, beside its place, so
// that a path that cannot be written fails before anything else is done; it takes its place in
// Commit, and without one leaves nothing behind. What exists and is no plain file (a pipe,
// /dev/null) is written to where it is. Move-only.
class PendingFile {
 public:
  // Errors name the file: as of the failed system call.
  static absl::StatusOr<PendingFile> Create(const std::string& path);
  PendingFile(PendingFile&& other) noexcept { *this = std::move(other); }
  PendingFile& operator=(PendingFile&& other) noexcept;
  ~PendingFile();

  // Once. Errors as of Create.
  absl::Status Commit(absl::string_view bytes);

  const std::string& path() const { return path_; }

 private:
  PendingFile(std::string path, std::string draft, int descriptor)
      : path_(std::move(path)), draft_(std::move(draft)), descriptor_(descriptor) {}

  std::string path_;
  std::string draft_;    // the path until Commit; empty: written in place
  int descriptor_ = -1;  // -1: committed, or moved from
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FILES_H_
