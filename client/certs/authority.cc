#include "client/certs/authority.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/certs/certificate_facts.h"
#include "client/certs/new_file.h"
#include "client/certs/pem.h"
#include "client/certs/requested_identity.h"
#include "client/certs/signed_certificate.h"

namespace muster::certs {
namespace {

constexpr absl::Duration kClockSkew = absl::Minutes(5);
constexpr size_t kMaxCommonNameBytes = 64;

absl::Status MakeEmptyDirectory(const std::string& directory) {
  std::error_code error;
  // The last one is made by itself: nobody else may ever enter it.
  const std::filesystem::path parent = std::filesystem::path(directory + "/").parent_path();
  if (parent.has_parent_path()) std::filesystem::create_directories(parent.parent_path(), error);
  if (mkdir(directory.c_str(), 0700) == 0) return absl::OkStatus();
  const int failure = errno;
  if (failure != EEXIST) {
    return absl::ErrnoToStatus(failure, absl::StrCat("cannot create ", directory));
  }
  const bool empty = std::filesystem::is_empty(directory, error) && !error;
  if (!empty || !std::filesystem::is_directory(directory)) {
    return absl::AlreadyExistsError(
        absl::StrCat(directory,
                     " is there and not empty: name a new folder; nothing that an "
                     "authority once signed with is overwritten"));
  }
  if (chmod(directory.c_str(), 0700) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot keep others out of ", directory));
  }
  return absl::OkStatus();
}

std::string CommonName(const TlsIdentity& identity) {
  const std::string name = identity.Name();
  return name.size() <= kMaxCommonNameBytes ? name : TlsRoleName(identity.role);
}

}  // namespace

absl::StatusOr<Authority> Authority::Create(const std::string& directory,
                                            const std::string& trust_domain, absl::Time now) {
  MUSTER_RETURN_IF_ERROR(CheckTrustDomain(trust_domain));
  MUSTER_ASSIGN_OR_RETURN(KeyPtr key, NewKey());
  const CertificateFields fields = {
      .common_name = absl::StrCat("authority of ", trust_domain).substr(0, kMaxCommonNameBytes),
      .not_before = now - kClockSkew,
      .not_after = now + kAuthorityValidity,
      .authority = true,
      .uri = AuthorityUri(trust_domain)};
  MUSTER_ASSIGN_OR_RETURN(CertificatePtr certificate, SignCertificate(fields, *key, {key.get()}));
  MUSTER_ASSIGN_OR_RETURN(const std::string key_pem, ToPem(*key));
  MUSTER_ASSIGN_OR_RETURN(const std::string certificate_pem, ToPem(*certificate));
  MUSTER_RETURN_IF_ERROR(MakeEmptyDirectory(directory));
  MUSTER_RETURN_IF_ERROR(WriteNewFile(directory + "/ca.key", key_pem, 0600));
  MUSTER_RETURN_IF_ERROR(WriteNewFile(directory + "/ca.crt", certificate_pem, 0644));
  return Authority(trust_domain, std::move(certificate), std::move(key));
}

absl::StatusOr<Authority> Authority::Open(const std::string& directory) {
  auto certificates = ReadCertificates(directory + "/ca.crt");
  if (absl::IsNotFound(certificates.status())) {
    return absl::NotFoundError(absl::StrCat("there is no authority in ", directory,
                                            ": `musterctl certs init ", directory, "` makes one"));
  }
  MUSTER_RETURN_IF_ERROR(certificates.status());
  auto key = ReadKey(directory + "/ca.key");
  if (absl::IsNotFound(key.status())) {
    return absl::NotFoundError(
        absl::StrCat(directory,
                     " has ca.crt but no ca.key: only the folder that `musterctl certs init` made "
                     "can issue certificates, and a daemon's or client's folder cannot"));
  }
  MUSTER_RETURN_IF_ERROR(key.status());
  CertificatePtr certificate = std::move(certificates->front());
  const CertificateFacts facts = FactsOf(*certificate);
  if (!facts.authority || facts.trust_domain.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory,
                     "/ca.crt is not the certificate of an authority that "
                     "`musterctl certs init` made"));
  }
  if (X509_check_private_key(certificate.get(), key->get()) != 1) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, "/ca.key is not the key of the ca.crt beside it"));
  }
  return Authority(facts.trust_domain, std::move(certificate), *std::move(key));
}

absl::StatusOr<Credentials> Authority::Issue(const IssueRequest& request, absl::Time now) const {
  MUSTER_ASSIGN_OR_RETURN(const TlsIdentity identity,
                          RequestedIdentity(trust_domain_, request.role, request.id));
  CertificateFields fields = {.common_name = CommonName(identity),
                              .not_before = now - kClockSkew,
                              .not_after = now + request.validity,
                              .server = IsDaemon(identity.role),
                              .uri = identity.ToUri(),
                              .dns_names = request.dns_names,
                              .ip_addresses = request.ip_addresses};
  if (fields.server) {
    fields.dns_names.insert(fields.dns_names.begin(), request.role + ".muster");
  } else if (!request.dns_names.empty() || !request.ip_addresses.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("role ", request.role,
                     " does not listen: --dns and --ip are for workers and coordinators"));
  }
  MUSTER_RETURN_IF_ERROR(CheckValidity(fields.not_after, now));
  MUSTER_ASSIGN_OR_RETURN(const KeyPtr key, NewKey());
  MUSTER_ASSIGN_OR_RETURN(const CertificatePtr certificate,
                          SignCertificate(fields, *key, {key_.get(), certificate_.get()}));
  Credentials credentials;
  MUSTER_ASSIGN_OR_RETURN(credentials.certificate, ToPem(*certificate));
  MUSTER_ASSIGN_OR_RETURN(credentials.key, ToPem(*key));
  MUSTER_ASSIGN_OR_RETURN(credentials.authority, ToPem(*certificate_));
  return credentials;
}

absl::Status Authority::CheckValidity(absl::Time not_after, absl::Time now) const {
  const absl::Time end = FactsOf(*certificate_).not_after;
  if (not_after <= end) return absl::OkStatus();
  const int64_t days = (end - now) / absl::Hours(24);
  if (days < 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the authority ends on ", FormatDate(end), ": make a new one with `musterctl certs init`"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("a certificate may last ", days, " days at most, to the end of its authority"));
}

}  // namespace muster::certs
