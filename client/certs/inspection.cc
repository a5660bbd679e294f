#include "client/certs/inspection.h"

#include <openssl/x509_vfy.h>

#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/certs/pem.h"

namespace muster::certs {
namespace {

absl::Status CheckKey(X509& certificate, const std::string& key_path) {
  MUSTER_ASSIGN_OR_RETURN(const KeyPtr key, ReadKey(key_path));
  if (X509_check_private_key(&certificate, key.get()) == 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(key_path, " is the key of another certificate"));
}

absl::Status CheckChain(const std::vector<CertificatePtr>& chain, const std::string& ca_path) {
  MUSTER_ASSIGN_OR_RETURN(const auto authorities, ReadCertificates(ca_path));
  X509_STORE* store = X509_STORE_new();
  X509_STORE_CTX* context = X509_STORE_CTX_new();
  STACK_OF(X509)* between = sk_X509_new_null();
  const absl::Cleanup freed = [&] {
    sk_X509_free(between);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
  };
  for (const CertificatePtr& authority : authorities) X509_STORE_add_cert(store, authority.get());
  for (const CertificatePtr& certificate : chain) sk_X509_push(between, certificate.get());
  if (X509_STORE_CTX_init(context, store, chain[0].get(), between) != 1) {
    return OpenSslError("check a chain");
  }
  X509_STORE_CTX_set_flags(context, X509_V_FLAG_NO_CHECK_TIME);
  if (X509_verify_cert(context) == 1) return absl::OkStatus();
  const char* why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context));
  return absl::FailedPreconditionError(
      absl::StrCat(ca_path, " has not signed the certificate: ", why));
}

}  // namespace

absl::StatusOr<Inspection> Inspect(const std::string& path) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  const bool issued = folder && std::filesystem::exists(path + "/tls.crt", error);
  if (folder && !issued && !std::filesystem::exists(path + "/ca.crt", error)) {
    return absl::NotFoundError(absl::StrCat("there is neither tls.crt nor ca.crt in ", path));
  }
  Inspection inspection;
  inspection.path = folder ? absl::StrCat(path, issued ? "/tls.crt" : "/ca.crt") : path;
  MUSTER_ASSIGN_OR_RETURN(const auto chain, ReadCertificates(inspection.path));
  inspection.facts = FactsOf(*chain[0]);
  if (!folder) return inspection;
  inspection.key = CheckKey(*chain[0], absl::StrCat(path, issued ? "/tls.key" : "/ca.key"));
  inspection.chain = CheckChain(chain, path + "/ca.crt");
  return inspection;
}

std::vector<std::string> Inspection::Problems(absl::Time now) const {
  std::vector<std::string> problems;
  if (facts.HasExpired(now)) {
    problems.push_back(absl::StrCat(path, " has expired: issue a new one"));
  }
  if (facts.IsYetToCome(now)) {
    problems.push_back(absl::StrCat(path, " is not valid yet: are the clocks right?"));
  }
  if (!facts.authority && !facts.identity.has_value()) {
    problems.push_back(absl::StrCat(path, ": ", TlsIdentityOf(facts.uris).status().message()));
  }
  for (const auto& check : {key, chain}) {
    if (check.has_value() && !check->ok()) problems.emplace_back(check->message());
  }
  return problems;
}

}  // namespace muster::certs
