// Owners of what libcrypto allocates, and its failures as absl::Status.
#ifndef MUSTER_CLIENT_CERTS_OPENSSL_PTR_H_
#define MUSTER_CLIENT_CERTS_OPENSSL_PTR_H_

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace muster::certs {

template <auto kFree>
struct OpenSslFree {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

using BioPtr = std::unique_ptr<BIO, OpenSslFree<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpenSslFree<X509_EXTENSION_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, OpenSslFree<GENERAL_NAMES_free>>;

// INTERNAL "cannot `what`: ..." with what libcrypto says of the last failure; empties its queue.
absl::Status OpenSslError(absl::string_view what);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_OPENSSL_PTR_H_
