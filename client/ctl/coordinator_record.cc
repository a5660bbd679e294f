#include "client/ctl/coordinator_record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

std::string DirectoryOfUser() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  struct stat facts;
  // After `su` the variable may still be another user's.
  const bool ours = runtime != nullptr && stat(runtime, &facts) == 0 && facts.st_uid == getuid() &&
                    access(runtime, W_OK) == 0;
  if (ours) return absl::StrCat(runtime, "/muster");
  return absl::StrCat("/tmp/muster-", getuid());
}

}  // namespace

absl::StatusOr<CoordinatorRecord> CoordinatorRecord::Open() {
  const std::string directory = DirectoryOfUser();
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", directory));
  }
  struct stat facts;
  if (lstat(directory.c_str(), &facts) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", directory));
  }
  // Anybody may create names in /tmp: a directory of another user could send our calls anywhere.
  if (!S_ISDIR(facts.st_mode) || facts.st_uid != getuid() || (facts.st_mode & 022) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is not a directory that only this user may write: remove it"));
  }
  return CoordinatorRecord(directory);
}

absl::Status CoordinatorRecord::Write(const RecordedFleet& fleet) const {
  const std::string temporary = absl::StrCat(Path(), ".", getpid());
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << fleet.address << "\n" << fleet.tls << "\n";
    if (!file.flush()) return absl::UnavailableError(absl::StrCat("cannot write ", temporary));
  }
  if (rename(temporary.c_str(), Path().c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", Path()));
  }
  return absl::OkStatus();
}

std::optional<RecordedFleet> CoordinatorRecord::Read() const {
  std::ifstream file(Path());
  RecordedFleet fleet;
  if (!std::getline(file, fleet.address) || fleet.address.empty()) return std::nullopt;
  std::getline(file, fleet.tls);
  return fleet;
}

void CoordinatorRecord::Remove(const std::string& address) const {
  const auto fleet = Read();
  if (fleet.has_value() && fleet->address == address) unlink(Path().c_str());
}

std::string CoordinatorRecord::Path() const { return directory_ + "/coordinator"; }

}  // namespace muster::ctl
