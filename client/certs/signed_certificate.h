// An X.509 certificate from what stands in it: ECDSA on P-256, signed with SHA-256.
#ifndef MUSTER_CLIENT_CERTS_SIGNED_CERTIFICATE_H_
#define MUSTER_CLIENT_CERTS_SIGNED_CERTIFICATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/certs/openssl_ptr.h"

namespace muster::certs {

struct CertificateFields {
  std::string common_name;  // at most 64 bytes
  absl::Time not_before;
  absl::Time not_after;
  bool authority = false;  // may sign others, and no authority below itself
  bool server = false;     // listens; all but authorities may connect
  // Alternative names of the subject.
  std::string uri;
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
};

// Who signs; without a certificate the new one signs itself.
struct Signer {
  EVP_PKEY* key;
  X509* certificate = nullptr;
};

absl::StatusOr<KeyPtr> NewKey();

// INVALID_ARGUMENT names a DNS name or an IP address that is none.
absl::StatusOr<CertificatePtr> SignCertificate(const CertificateFields& fields, EVP_PKEY& key,
                                               const Signer& signer);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_SIGNED_CERTIFICATE_H_
