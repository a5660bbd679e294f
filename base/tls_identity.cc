#include "base/tls_identity.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/text.h"

namespace muster {
namespace {

constexpr absl::string_view kScheme = "spiffe://";
constexpr absl::string_view kProduct = "muster";
constexpr absl::string_view kForm =
    "spiffe://TRUST-DOMAIN/muster/ROLE[/ID], ROLE one of worker (with its worker_id), scheduler, "
    "operator, coordinator";
constexpr size_t kMaxTrustDomainBytes = 255;
constexpr size_t kMaxShownBytes = 128;

constexpr std::array kRoles = {TlsRole::kWorker, TlsRole::kScheduler, TlsRole::kOperator,
                               TlsRole::kCoordinator};

bool IsTrustDomain(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxTrustDomainBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '-' ||
                  c == '_';
         });
}

std::string Shown(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMaxShownBytes)),
                      text.size() > kMaxShownBytes ? "..." : "", "'");
}

absl::Status NoIdentity(absl::string_view uri) {
  return absl::InvalidArgumentError(
      absl::StrCat("the URI of the certificate is ", Shown(uri), "; it must be ", kForm));
}

}  // namespace

const char* TlsRoleName(TlsRole role) {
  switch (role) {
    case TlsRole::kWorker:
      return "worker";
    case TlsRole::kScheduler:
      return "scheduler";
    case TlsRole::kOperator:
      return "operator";
    case TlsRole::kCoordinator:
      return "coordinator";
  }
  return "?";
}

std::string TlsIdentity::Name() const {
  return id.empty() ? TlsRoleName(role) : absl::StrCat(TlsRoleName(role), "/", id);
}

std::string TlsIdentity::ToUri() const {
  return absl::StrCat(kScheme, trust_domain, "/", kProduct, "/", Name());
}

absl::StatusOr<TlsIdentity> ParseTlsIdentity(absl::string_view uri) {
  absl::string_view path = uri;
  if (!absl::ConsumePrefix(&path, kScheme)) return NoIdentity(uri);
  const std::vector<absl::string_view> parts = absl::StrSplit(path, '/');
  if (parts.size() < 3 || parts.size() > 4) return NoIdentity(uri);
  if (!IsTrustDomain(parts[0]) || parts[1] != kProduct) return NoIdentity(uri);
  const auto role = std::find_if(kRoles.begin(), kRoles.end(),
                                 [&](TlsRole it) { return parts[2] == TlsRoleName(it); });
  if (role == kRoles.end()) return NoIdentity(uri);
  TlsIdentity identity{.trust_domain = std::string(parts[0]), .role = *role};
  if (parts.size() == 4) {
    if (!IsName(parts[3])) return NoIdentity(uri);
    identity.id = std::string(parts[3]);
  }
  if (identity.role == TlsRole::kWorker && identity.id.empty()) return NoIdentity(uri);
  return identity;
}

absl::StatusOr<TlsIdentity> TlsIdentityOf(const std::vector<std::string>& uris) {
  if (uris.size() == 1) return ParseTlsIdentity(uris.front());
  return absl::InvalidArgumentError(absl::StrCat(
      "the certificate has ", uris.size(), " URIs among its names; it must have one, ", kForm));
}

absl::Status CheckTlsPeer(const TlsIdentity& identity, absl::string_view trust_domain,
                          const TlsPeer& wanted) {
  const bool fits = identity.trust_domain == trust_domain && identity.role == wanted.role &&
                    (wanted.id.empty() || identity.id == wanted.id);
  if (fits) return absl::OkStatus();
  const TlsIdentity expected{
      .trust_domain = std::string(trust_domain), .role = wanted.role, .id = wanted.id};
  return absl::UnauthenticatedError(absl::StrCat("the peer's certificate is that of ",
                                                 identity.ToUri(), "; expected ", expected.ToUri(),
                                                 wanted.id.empty() ? " with any id" : ""));
}

absl::Status CheckIsWorker(const std::optional<TlsIdentity>& caller, absl::string_view worker_id) {
  const bool allowed =
      !caller.has_value() || (caller->role == TlsRole::kWorker && caller->id == worker_id);
  if (allowed) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("the certificate is that of ", caller->Name(),
                                                  ", who cannot speak for worker ", worker_id));
}

}  // namespace muster
