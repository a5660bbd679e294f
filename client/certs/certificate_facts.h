// What stands in a certificate, as plain values.
#ifndef MUSTER_CLIENT_CERTS_CERTIFICATE_FACTS_H_
#define MUSTER_CLIENT_CERTS_CERTIFICATE_FACTS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/tls_identity.h"
#include "client/certs/openssl_ptr.h"

namespace muster::certs {

struct CertificateFacts {
  std::string subject;  // "CN=worker w0,O=Muster"
  std::string issuer;
  std::vector<std::string> uris;
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
  absl::Time not_before;
  absl::Time not_after;
  bool authority = false;
  std::string trust_domain;             // empty where no URI tells it
  std::optional<TlsIdentity> identity;  // where it has one

  bool HasExpired(absl::Time now) const { return now > not_after; }
  bool IsYetToCome(absl::Time now) const { return now < not_before; }
};

CertificateFacts FactsOf(const X509& certificate);

// "2026-11-30 02:55 UTC".
std::string FormatDate(absl::Time time);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_CERTIFICATE_FACTS_H_
