// A folder of credentials as daemons and clients take it: tls.crt, tls.key (0600) and ca.crt.
#ifndef MUSTER_CLIENT_CERTS_TLS_FOLDER_H_
#define MUSTER_CLIENT_CERTS_TLS_FOLDER_H_

#include <string>

#include "absl/status/status.h"
#include "client/certs/authority.h"

namespace muster::certs {

// Makes the folder where there is none (mode 0700), or replaces what is in it. As in a secret that
// Kubernetes mounts, the three files are links through one link, "..data", to a hidden folder with
// what belongs together: whoever reads them sees the former certificate and key or the new ones.
// Errors: as of the failed system call, with the path.
absl::Status WriteTlsFolder(const std::string& directory, const Credentials& credentials);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_TLS_FOLDER_H_
