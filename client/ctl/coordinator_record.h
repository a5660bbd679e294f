// Where the user's last local fleet listens, so that later calls need no address.
#ifndef MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_
#define MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace muster::ctl {

struct RecordedFleet {
  std::string address;  // "host:port" of the coordinator
  std::string tls;      // folder of its operator's certificate; empty: it listens in plaintext

  friend bool operator==(const RecordedFleet&, const RecordedFleet&) = default;
};

// A file of two lines, the second one empty without TLS, in a directory of this user alone. Two
// fleets at once: the last one started is the one recorded.
class CoordinatorRecord {
 public:
  // $XDG_RUNTIME_DIR/muster, or /tmp/muster-UID where there is none. Creates it with mode 0700.
  // Errors: FAILED_PRECONDITION (it belongs to somebody else), or as of the failed system call.
  static absl::StatusOr<CoordinatorRecord> Open();
  // In another directory, which exists.
  explicit CoordinatorRecord(std::string directory) : directory_(std::move(directory)) {}

  // Replaces the record as a whole: a reader sees the former or the new one.
  absl::Status Write(const RecordedFleet& fleet) const;
  // Nothing when there is no record.
  std::optional<RecordedFleet> Read() const;
  // Removes the record if it is still that of `address`.
  void Remove(const std::string& address) const;

  const std::string& directory() const { return directory_; }

 private:
  std::string Path() const;

  std::string directory_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_COORDINATOR_RECORD_H_
