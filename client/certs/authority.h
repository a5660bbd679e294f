// A private certificate authority for a test cluster: a folder with ca.crt and ca.key.
#ifndef MUSTER_CLIENT_CERTS_AUTHORITY_H_
#define MUSTER_CLIENT_CERTS_AUTHORITY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/certs/openssl_ptr.h"

namespace muster::certs {

inline constexpr absl::Duration kAuthorityValidity = absl::Hours(24 * 3650);

struct IssueRequest {
  std::string role;
  std::string id;
  absl::Duration validity = absl::Hours(24 * 90);
  // Further ones: every daemon has "coordinator.muster" or "worker.muster".
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
};

// In PEM.
struct Credentials {
  std::string certificate;
  std::string key;
  std::string authority;
};

// Move-only. Certificates begin five minutes before `now`, for clocks that are behind.
class Authority {
 public:
  // Makes the folder (mode 0700; its parents too) with a new key (0600) and a certificate of ten
  // years. Errors: INVALID_ARGUMENT (CheckTrustDomain), ALREADY_EXISTS (the folder holds
  // something), or as of the failed system call.
  static absl::StatusOr<Authority> Create(const std::string& directory,
                                          const std::string& trust_domain, absl::Time now);
  // Errors: NOT_FOUND (no authority, or no key of it, is there; says what to do),
  // FAILED_PRECONDITION (its certificate is of something else, or the key does not fit).
  static absl::StatusOr<Authority> Open(const std::string& directory);

  // Errors: INVALID_ARGUMENT (RequestedIdentity, a bad DNS name or IP address, one for a role that
  // does not listen), FAILED_PRECONDITION (it would outlive the authority; says how long it may
  // last).
  absl::StatusOr<Credentials> Issue(const IssueRequest& request, absl::Time now) const;

  const std::string& trust_domain() const { return trust_domain_; }

 private:
  Authority(std::string trust_domain, CertificatePtr certificate, KeyPtr key)
      : trust_domain_(std::move(trust_domain)),
        certificate_(std::move(certificate)),
        key_(std::move(key)) {}

  absl::Status CheckValidity(absl::Time not_after, absl::Time now) const;

  std::string trust_domain_;
  CertificatePtr certificate_;
  KeyPtr key_;
};

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_AUTHORITY_H_
