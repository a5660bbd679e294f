// The certificates of a local fleet, in a folder that goes with it.
#ifndef MUSTER_CLIENT_CTL_FLEET_CERTIFICATES_H_
#define MUSTER_CLIENT_CTL_FLEET_CERTIFICATES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster::ctl {

// An authority of the fleet's own, and beside it a folder of credentials for each daemon and
// client; `musterctl certs issue` makes more of them as long as the fleet lives.
class FleetCertificates {
 public:
  // In a folder of this process in `directory`, from which it removes those of processes that could
  // not do so themselves. Errors: as of certs::Authority and certs::WriteTlsFolder.
  static absl::StatusOr<std::unique_ptr<FleetCertificates>> Make(
      const std::string& directory, const std::vector<std::string>& worker_ids);
  // Removes the folder.
  ~FleetCertificates();

  // Of "coordinator", "operator", "scheduler", a worker by its id, or "ca".
  std::string Folder(absl::string_view holder) const;

 private:
  explicit FleetCertificates(const std::string& directory) : directory_(directory) {}

  const std::string directory_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FLEET_CERTIFICATES_H_
