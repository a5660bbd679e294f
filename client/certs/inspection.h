// A certificate file, or a folder of credentials, looked at.
#ifndef MUSTER_CLIENT_CERTS_INSPECTION_H_
#define MUSTER_CLIENT_CERTS_INSPECTION_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/certs/certificate_facts.h"

namespace muster::certs {

struct Inspection {
  std::string path;        // of the file with the certificate
  CertificateFacts facts;  // of its first one
  // Not looked at for a single file. OK: the private key beside it is the certificate's.
  std::optional<absl::Status> key;
  // Likewise. OK: ca.crt beside it has signed it, whatever the time.
  std::optional<absl::Status> chain;

  // What keeps it from being used at `now`, one line each; none: all is well.
  std::vector<std::string> Problems(absl::Time now) const;
};

// `path` is a file, or a folder: of credentials (tls.crt, tls.key, ca.crt), else of an authority
// (ca.crt, ca.key). Errors: as of ReadCertificates; NOT_FOUND (the folder has neither tls.crt nor
// ca.crt).
absl::StatusOr<Inspection> Inspect(const std::string& path);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_INSPECTION_H_
