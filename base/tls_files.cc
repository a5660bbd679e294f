#include "base/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

struct Free {
  void operator()(BIO* it) const { BIO_free(it); }
  void operator()(EVP_PKEY* it) const { EVP_PKEY_free(it); }
  void operator()(GENERAL_NAMES* it) const { GENERAL_NAMES_free(it); }
  void operator()(STACK_OF(X509) * it) const { sk_X509_pop_free(it, X509_free); }
  void operator()(X509* it) const { X509_free(it); }
  void operator()(X509_STORE* it) const { X509_STORE_free(it); }
  void operator()(X509_STORE_CTX* it) const { X509_STORE_CTX_free(it); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;
using Certificates = std::vector<Owned<X509>>;

absl::Status Refuse(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  errno = 0;
  std::ifstream in(path);
  std::ostringstream text;
  if (in && text << in.rdbuf()) return text.str();
  const int error = errno;
  return absl::Status(
      error == EACCES ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kNotFound,
      absl::StrCat(path, ": ", error == 0 ? "it is empty" : std::strerror(error),
                   "; --tls names a folder with tls.crt, tls.key and ca.crt"));
}

// A key with a password is none: nobody is there to type it.
int NoPassword(char*, int, int, void*) { return 0; }

absl::StatusOr<Certificates> ReadCertificates(const std::string& path) {
  MUSTER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Owned<BIO> in(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Certificates certificates;
  while (X509* it = PEM_read_bio_X509(in.get(), nullptr, NoPassword, nullptr)) {
    certificates.emplace_back(it);
  }
  const bool read_all = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (certificates.empty() || !read_all) {
    return Refuse(path, "it must hold certificates in PEM, and nothing else");
  }
  return certificates;
}

absl::StatusOr<Owned<EVP_PKEY>> ReadKey(const std::string& path) {
  MUSTER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Owned<BIO> in(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(in.get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Refuse(path, "it must hold a private key in PEM, without a password");
  return key;
}

std::string Text(const ASN1_TIME* time) {
  const Owned<BIO> out(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(out.get(), time);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::Status CheckDates(const X509& certificate, const std::string& path) {
  const ASN1_TIME* begin = X509_get0_notBefore(&certificate);
  const ASN1_TIME* end = X509_get0_notAfter(&certificate);
  if (X509_cmp_current_time(begin) > 0) {
    return Refuse(path, absl::StrCat("the certificate is not yet valid, but from ", Text(begin),
                                     "; is the clock right?"));
  }
  if (X509_cmp_current_time(end) < 0) {
    return Refuse(path, absl::StrCat("the certificate expired at ", Text(end), "; renew it"));
  }
  return absl::OkStatus();
}

std::vector<std::string> UrisOf(const X509& certificate) {
  const Owned<GENERAL_NAMES> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> uris;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                      static_cast<size_t>(ASN1_STRING_length(uri)));
  }
  return uris;
}

// Empty when a peer that trusts `authorities` would take `chain`, whose first is the holder's, for
// `purpose`.
std::string WhyUntrusted(const Certificates& chain, const Certificates& authorities, int purpose) {
  const Owned<X509_STORE> store(X509_STORE_new());
  for (const auto& it : authorities) X509_STORE_add_cert(store.get(), it.get());
  const Owned<STACK_OF(X509)> others(sk_X509_new_null());
  for (const auto& it : chain) {
    X509_up_ref(it.get());
    sk_X509_push(others.get(), it.get());
  }
  const Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), others.get());
  X509_STORE_CTX_set_purpose(context.get(), purpose);
  const bool trusted = X509_verify_cert(context.get()) == 1;
  ERR_clear_error();
  return trusted ? "" : X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
}

// Workers and the coordinator are servers as well.
bool IsDaemon(TlsRole role) { return role == TlsRole::kWorker || role == TlsRole::kCoordinator; }

absl::Status CheckTrust(const Certificates& chain, const Certificates& authorities, TlsRole role,
                        const std::string& path) {
  if (const std::string why = WhyUntrusted(chain, authorities, X509_PURPOSE_ANY); !why.empty()) {
    return Refuse(path, absl::StrCat("ca.crt does not vouch for the certificate: ", why));
  }
  if (const std::string why = WhyUntrusted(chain, authorities, X509_PURPOSE_SSL_CLIENT);
      !why.empty()) {
    return Refuse(path, absl::StrCat("the certificate is not for clients (", why,
                                     "); it needs the extended key usage clientAuth"));
  }
  if (!IsDaemon(role)) return absl::OkStatus();
  if (const std::string why = WhyUntrusted(chain, authorities, X509_PURPOSE_SSL_SERVER);
      !why.empty()) {
    return Refuse(path,
                  absl::StrCat("the certificate is not for servers (", why, "); that of a ",
                               TlsRoleName(role), " needs the extended key usage serverAuth too"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string TlsPath(absl::string_view directory, absl::string_view file) {
  return absl::StrCat(directory, "/", file);
}

absl::StatusOr<TlsIdentity> ReadTlsFiles(const std::string& directory) {
  const std::string certificate_path = TlsPath(directory, kTlsCertificateFile);
  const std::string key_path = TlsPath(directory, kTlsKeyFile);
  MUSTER_ASSIGN_OR_RETURN(const Certificates chain, ReadCertificates(certificate_path));
  MUSTER_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> key, ReadKey(key_path));
  MUSTER_ASSIGN_OR_RETURN(const Certificates authorities,
                          ReadCertificates(TlsPath(directory, kTlsAuthorityFile)));
  X509& certificate = *chain.front();
  const bool fits = X509_check_private_key(&certificate, key.get()) == 1;
  ERR_clear_error();
  if (!fits) return Refuse(key_path, "the key is not that of the certificate in tls.crt");
  MUSTER_RETURN_IF_ERROR(CheckDates(certificate, certificate_path));
  const auto identity = TlsIdentityOf(UrisOf(certificate));
  if (!identity.ok()) return Refuse(certificate_path, identity.status().message());
  MUSTER_RETURN_IF_ERROR(CheckTrust(chain, authorities, identity->role, certificate_path));
  return identity;
}

}  // namespace muster
