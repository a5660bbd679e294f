// Who a certificate says its holder is: one URI of the form
// spiffe://TRUST-DOMAIN/muster/ROLE[/ID] (SPIFFE's X509-SVID, spiffe.io).
#ifndef MUSTER_BASE_TLS_IDENTITY_H_
#define MUSTER_BASE_TLS_IDENTITY_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

enum class TlsRole { kWorker, kScheduler, kOperator, kCoordinator };

// "worker", "scheduler", "operator", "coordinator".
const char* TlsRoleName(TlsRole role);

struct TlsIdentity {
  std::string trust_domain;  // 1 to 255 lower-case letters, digits, '.', '-' and '_'
  TlsRole role = TlsRole::kWorker;
  std::string id;  // of a worker its worker_id; others may have none

  // "worker/w0", "scheduler".
  std::string Name() const;
  // As the certificate has it.
  std::string ToUri() const;

  friend bool operator==(const TlsIdentity&, const TlsIdentity&) = default;
};

// Whom a client means to reach.
struct TlsPeer {
  TlsRole role = TlsRole::kCoordinator;
  std::string id;  // empty for any
};

// INVALID_ARGUMENT says what is wrong with `uri`.
absl::StatusOr<TlsIdentity> ParseTlsIdentity(absl::string_view uri);

// The identity of a certificate by the URIs among its alternative names: exactly one, of that form.
// INVALID_ARGUMENT.
absl::StatusOr<TlsIdentity> TlsIdentityOf(const std::vector<std::string>& uris);

// OK when `identity` is of `trust_domain` and is `wanted`; UNAUTHENTICATED names both.
absl::Status CheckTlsPeer(const TlsIdentity& identity, absl::string_view trust_domain,
                          const TlsPeer& wanted);

// OK when `caller` is the worker `worker_id`, or unknown, as on a plaintext port; PERMISSION_DENIED
// names both.
absl::Status CheckIsWorker(const std::optional<TlsIdentity>& caller, absl::string_view worker_id);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_IDENTITY_H_
