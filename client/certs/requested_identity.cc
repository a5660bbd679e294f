#include "client/certs/requested_identity.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace muster::certs {
namespace {

constexpr absl::string_view kScheme = "spiffe://";

bool IsIdentity(const TlsIdentity& identity) {
  const auto parsed = ParseTlsIdentity(identity.ToUri());
  return parsed.ok() && *parsed == identity;
}

absl::StatusOr<TlsRole> ParseRole(absl::string_view name) {
  for (const TlsRole role :
       {TlsRole::kWorker, TlsRole::kCoordinator, TlsRole::kScheduler, TlsRole::kOperator}) {
    if (name == TlsRoleName(role)) return role;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "there is no role '", name, "': it is worker, coordinator, scheduler or operator"));
}

}  // namespace

absl::Status CheckTrustDomain(absl::string_view trust_domain) {
  if (IsIdentity({std::string(trust_domain), TlsRole::kOperator, ""})) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", trust_domain,
                   "' is no trust domain: it has 1 to 255 of the characters a-z 0-9 . _ -, like "
                   "muster.local"));
}

absl::StatusOr<TlsIdentity> RequestedIdentity(const std::string& trust_domain,
                                              absl::string_view role, const std::string& id) {
  MUSTER_RETURN_IF_ERROR(CheckTrustDomain(trust_domain));
  TlsIdentity identity{.trust_domain = trust_domain, .id = id};
  MUSTER_ASSIGN_OR_RETURN(identity.role, ParseRole(role));
  if (identity.role == TlsRole::kWorker && id.empty()) {
    return absl::InvalidArgumentError(
        "a worker's certificate is for one worker: its --worker-id comes after 'worker'");
  }
  // Whoever takes the URI for a path would leave these two out.
  if (id != "." && id != ".." && IsIdentity(identity)) return identity;
  return absl::InvalidArgumentError(
      absl::StrCat("'", id,
                   "' is no id: it has 1 to 128 of the characters A-Z a-z 0-9 . _ -, and is "
                   "neither '.' nor '..'"));
}

bool IsDaemon(TlsRole role) { return role == TlsRole::kWorker || role == TlsRole::kCoordinator; }

std::string AuthorityUri(absl::string_view trust_domain) {
  return absl::StrCat(kScheme, trust_domain);
}

std::optional<std::string> ParseAuthorityUri(absl::string_view uri) {
  if (!absl::ConsumePrefix(&uri, kScheme) || !CheckTrustDomain(uri).ok()) return std::nullopt;
  return std::string(uri);
}

}  // namespace muster::certs
