#include "client/ctl/fleet_certificates.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/certs/authority.h"
#include "client/certs/tls_folder.h"

namespace muster::ctl {
namespace {

constexpr char kPrefix[] = "up-";
constexpr char kSuffix[] = "-tls";

// Whose process has ended, or had the id that is this one's now.
bool IsOrphan(absl::string_view name) {
  int process = 0;
  return absl::ConsumePrefix(&name, kPrefix) && absl::ConsumeSuffix(&name, kSuffix) &&
         absl::SimpleAtoi(name, &process) && process > 0 &&
         (process == getpid() || (kill(process, 0) != 0 && errno == ESRCH));
}

void RemoveOrphans(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (IsOrphan(entry.path().filename().string())) std::filesystem::remove_all(entry, error);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<FleetCertificates>> FleetCertificates::Make(
    const std::string& directory, const std::vector<std::string>& worker_ids) {
  RemoveOrphans(directory);
  auto certificates = absl::WrapUnique(
      new FleetCertificates(absl::StrCat(directory, "/", kPrefix, getpid(), kSuffix)));
  const absl::Time now = absl::Now();
  MUSTER_ASSIGN_OR_RETURN(
      const certs::Authority authority,
      certs::Authority::Create(certificates->Folder("ca"), "muster.local", now));
  const auto issue = [&](const std::string& role, const std::string& id) -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(const certs::Credentials credentials,
                            authority.Issue({.role = role, .id = id}, now));
    return certs::WriteTlsFolder(certificates->Folder(id.empty() ? role : id), credentials);
  };
  for (const char* role : {"coordinator", "operator", "scheduler"}) {
    MUSTER_RETURN_IF_ERROR(issue(role, ""));
  }
  for (const std::string& id : worker_ids) MUSTER_RETURN_IF_ERROR(issue("worker", id));
  return certificates;
}

FleetCertificates::~FleetCertificates() {
  std::error_code error;
  std::filesystem::remove_all(directory_, error);
}

std::string FleetCertificates::Folder(absl::string_view holder) const {
  return absl::StrCat(directory_, "/", holder);
}

}  // namespace muster::ctl
