// Certificates and keys in PEM, as they lie in files.
#ifndef MUSTER_CLIENT_CERTS_PEM_H_
#define MUSTER_CLIENT_CERTS_PEM_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/certs/openssl_ptr.h"

namespace muster::certs {

// All certificates of a file, in its order, at least one. Errors name the file: NOT_FOUND or as of
// the failed system call, INVALID_ARGUMENT (there is none in it, or one that is broken).
absl::StatusOr<std::vector<CertificatePtr>> ReadCertificates(const std::string& path);

// The private key of a file. Errors likewise; INVALID_ARGUMENT also where a passphrase protects it.
absl::StatusOr<KeyPtr> ReadKey(const std::string& path);

absl::StatusOr<std::string> ToPem(X509& certificate);
// PKCS #8, without a passphrase.
absl::StatusOr<std::string> ToPem(EVP_PKEY& key);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_PEM_H_
