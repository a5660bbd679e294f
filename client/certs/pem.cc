#include "client/certs/pem.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster::certs {
namespace {

// More than any chain; what is larger is something else.
constexpr size_t kMaxBytes = size_t{1} << 20;

absl::StatusOr<BioPtr> Open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  std::string bytes(kMaxBytes + 1, '\0');
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  const int error = std::ferror(file) != 0 ? errno : 0;
  std::fclose(file);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  if (bytes.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 1 MiB"));
  }
  BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || BIO_write(bio.get(), bytes.data(), static_cast<int>(bytes.size())) !=
                            static_cast<int>(bytes.size())) {
    return bytes.empty() ? absl::InvalidArgumentError(absl::StrCat(path, " is empty"))
                         : OpenSslError(absl::StrCat("read ", path));
  }
  return bio;
}

std::string BytesOf(const BioPtr& bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &bytes);
  return std::string(bytes, static_cast<size_t>(size));
}

// Nobody is asked for a passphrase.
int NoPassphrase(char*, int, int, void*) { return -1; }

}  // namespace

absl::StatusOr<std::vector<CertificatePtr>> ReadCertificates(const std::string& path) {
  MUSTER_ASSIGN_OR_RETURN(const BioPtr bio, Open(path));
  ERR_clear_error();
  std::vector<CertificatePtr> certificates;
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.emplace_back(next);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!at_end) return absl::InvalidArgumentError(absl::StrCat(path, " has a broken certificate"));
  if (certificates.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " holds no certificate in PEM"));
  }
  return certificates;
}

absl::StatusOr<KeyPtr> ReadKey(const std::string& path) {
  MUSTER_ASSIGN_OR_RETURN(const BioPtr bio, Open(path));
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key != nullptr) return key;
  return absl::InvalidArgumentError(
      absl::StrCat(path, " holds no private key in PEM that can be read without a passphrase"));
}

absl::StatusOr<std::string> ToPem(X509& certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_X509(bio.get(), &certificate) != 1) {
    return OpenSslError("write a certificate");
  }
  return BytesOf(bio);
}

absl::StatusOr<std::string> ToPem(EVP_PKEY& key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpenSslError("write a key");
  }
  return BytesOf(bio);
}

}  // namespace muster::certs
