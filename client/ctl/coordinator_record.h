// Where the user's last local fleet listens, so that later calls need no address.
#ifndef MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_
#define MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace muster::ctl {

// A file of one line, "host:port", in a directory of this user alone. Two fleets at once: the last
// one started is the one recorded.
class CoordinatorRecord {
 public:
  // $XDG_RUNTIME_DIR/muster, or /tmp/muster-UID where there is none. Creates it with mode 0700.
  // Errors: FAILED_PRECONDITION (it belongs to somebody else), or as of the failed system call.
  static absl::StatusOr<CoordinatorRecord> Open();
  // In another directory, which exists.
  explicit CoordinatorRecord(std::string directory) : directory_(std::move(directory)) {}

  // Replaces the record as a whole: a reader sees the former or the new one.
  absl::Status Write(const std::string& address) const;
  // Nothing when there is no record.
  std::optional<std::string> Read() const;
  // Removes the record if it still says `address`.
  void Remove(const std::string& address) const;

  const std::string& directory() const { return directory_; }

 private:
  std::string Path() const;

  std::string directory_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_
