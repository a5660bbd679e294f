// --tls, alike in all daemons.
#ifndef MUSTER_BASE_TLS_FLAG_H_
#define MUSTER_BASE_TLS_FLAG_H_

#include <CLI/App.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "base/tls_identity.h"

namespace muster {

void AddTlsFlag(CLI::App& app, std::string& directory);

// The identity in the folder that --tls names. INVALID_ARGUMENT when its files are not what they
// must be (base/tls_files.h), when it is not one of `role`, or when --insecure is given as well.
absl::StatusOr<TlsIdentity> ReadTlsFlag(const std::string& directory, TlsRole role, bool insecure);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_FLAG_H_
