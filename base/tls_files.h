// The folder that --tls names: tls.crt (the certificate, and those between it and the authority),
// tls.key and ca.crt, in PEM, as a Kubernetes secret of cert-manager has them.
#ifndef MUSTER_BASE_TLS_FILES_H_
#define MUSTER_BASE_TLS_FILES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/tls_identity.h"

namespace muster {

inline constexpr absl::string_view kTlsCertificateFile = "tls.crt";
inline constexpr absl::string_view kTlsKeyFile = "tls.key";
inline constexpr absl::string_view kTlsAuthorityFile = "ca.crt";

// "DIRECTORY/FILE".
std::string TlsPath(absl::string_view directory, absl::string_view file);

// The identity in `directory`, once its files are what TLS needs: they can be read, the key is the
// certificate's, it is valid now, its authority is in ca.crt, and it may be used by clients (and,
// where it is a daemon's, by servers). Otherwise one line that names the file, what is wrong with
// it and what to do: NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT.
absl::StatusOr<TlsIdentity> ReadTlsFiles(const std::string& directory);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_FILES_H_
