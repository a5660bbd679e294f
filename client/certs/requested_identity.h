// The identities that certificates are asked for, in the words of a command line.
#ifndef MUSTER_CLIENT_CERTS_REQUESTED_IDENTITY_H_
#define MUSTER_CLIENT_CERTS_REQUESTED_IDENTITY_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/tls_identity.h"

namespace muster::certs {

// INVALID_ARGUMENT unless it is 1 to 255 of [a-z0-9._-].
absl::Status CheckTrustDomain(absl::string_view trust_domain);

// INVALID_ARGUMENT names what is wrong: the trust domain, an unknown role, a worker without an id,
// an id that is not 1 to 128 of [A-Za-z0-9._-] or is "." or "..".
absl::StatusOr<TlsIdentity> RequestedIdentity(const std::string& trust_domain,
                                              absl::string_view role, const std::string& id);

// Whether it listens, so that clients look for a DNS name in its certificate.
bool IsDaemon(TlsRole role);

// "spiffe://<trust_domain>": the URI of an authority, and back.
std::string AuthorityUri(absl::string_view trust_domain);
std::optional<std::string> ParseAuthorityUri(absl::string_view uri);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_REQUESTED_IDENTITY_H_
