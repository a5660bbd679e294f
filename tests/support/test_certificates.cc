#include "tests/support/test_certificates.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace muster {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

void Must(bool done, const char* what) {
  if (done) return;
  std::fprintf(stderr, "test certificate: cannot %s\n", what);
  std::abort();
}

Key NewKey() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  Must(extension != nullptr, "make an extension");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

Certificate NewCertificate(const std::string& name, EVP_PKEY* key, absl::Duration begins,
                           absl::Duration ends) {
  Certificate made(X509_new(), X509_free);
  X509_set_version(made.get(), X509_VERSION_3);
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made.get()), serial >> 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), absl::ToInt64Seconds(begins));
  X509_gmtime_adj(X509_getm_notAfter(made.get()), absl::ToInt64Seconds(ends));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_pubkey(made.get(), key);
  return made;
}

void WriteFile(const std::string& path, const std::function<bool(FILE*)>& write) {
  const std::string fresh = absl::StrCat(path, ".new");
  FILE* file = std::fopen(fresh.c_str(), "w");
  Must(file != nullptr && write(file) && std::fclose(file) == 0, "write a file");
  std::filesystem::rename(fresh, path);
}

}  // namespace

struct TestAuthority::Keys {
  Key key = NewKey();
  Certificate certificate{nullptr, X509_free};
};

TestAuthority::TestAuthority() : keys_(std::make_unique<Keys>()) {
  EVP_PKEY* key = keys_->key.get();
  keys_->certificate = NewCertificate("test authority", key, -absl::Hours(48), absl::Hours(48));
  X509* made = keys_->certificate.get();
  X509_set_issuer_name(made, X509_get_subject_name(made));
  AddExtension(made, made, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(made, made, NID_subject_key_identifier, "hash");
  Must(X509_sign(made, key, EVP_sha256()) > 0, "sign an authority");
}

TestAuthority::~TestAuthority() = default;

void TestAuthority::Issue(const TestCertificate& certificate, const std::string& directory) const {
  const Key key = NewKey();
  const Certificate made = NewCertificate("test", key.get(), certificate.begins, certificate.ends);
  X509* authority = keys_->certificate.get();
  X509_set_issuer_name(made.get(), X509_get_subject_name(authority));
  std::vector<std::string> names = {"DNS:worker.muster", "DNS:coordinator.muster"};
  for (const std::string& uri : certificate.uris) names.push_back("URI:" + uri);
  AddExtension(made.get(), authority, NID_subject_alt_name, absl::StrJoin(names, ","));
  AddExtension(made.get(), authority, NID_ext_key_usage, certificate.usage);
  Must(X509_sign(made.get(), keys_->key.get(), EVP_sha256()) > 0, "sign a certificate");
  std::filesystem::create_directories(directory);
  WriteFile(directory + "/ca.crt", [&](FILE* out) { return PEM_write_X509(out, authority) == 1; });
  WriteFile(directory + "/tls.crt",
            [&](FILE* out) { return PEM_write_X509(out, made.get()) == 1; });
  WriteFile(directory + "/tls.key", [&](FILE* out) {
    return PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
  });
}

}  // namespace muster
