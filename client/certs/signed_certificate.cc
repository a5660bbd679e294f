#include "client/certs/signed_certificate.h"

#include <openssl/ec.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace muster::certs {
namespace {

constexpr int kVersion3 = 2;
constexpr size_t kSerialBytes = 16;

bool IsDnsLabel(absl::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
         });
}

absl::Status CheckDnsName(absl::string_view name) {
  std::vector<absl::string_view> labels = absl::StrSplit(name, '.');
  // A name for all hosts of a domain, not of a whole top-level domain.
  if (labels.size() > 2 && labels[0] == "*") labels.erase(labels.begin());
  if (name.size() <= 253 && std::all_of(labels.begin(), labels.end(), IsDnsLabel)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--dns: '", name, "' is no DNS name: it is like gpu-0.muster.svc or *.workers.muster.svc"));
}

absl::Status AddName(GENERAL_NAMES& names, int type, absl::string_view text) {
  GENERAL_NAME* name = GENERAL_NAME_new();
  ASN1_IA5STRING* value = ASN1_IA5STRING_new();
  if (name == nullptr || value == nullptr ||
      ASN1_STRING_set(value, text.data(), static_cast<int>(text.size())) != 1) {
    return OpenSslError("name a certificate");
  }
  GENERAL_NAME_set0_value(name, type, value);
  sk_GENERAL_NAME_push(&names, name);
  return absl::OkStatus();
}

absl::Status AddIpAddress(GENERAL_NAMES& names, const std::string& text) {
  ASN1_OCTET_STRING* address = a2i_IPADDRESS(text.c_str());
  if (address == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ip: '", text, "' is no IP address: it is like 10.0.0.4 or fd00::4"));
  }
  GENERAL_NAME* name = GENERAL_NAME_new();
  GENERAL_NAME_set0_value(name, GEN_IPADD, address);
  sk_GENERAL_NAME_push(&names, name);
  return absl::OkStatus();
}

absl::Status AddAlternativeNames(const CertificateFields& fields, X509& certificate) {
  const NamesPtr names(GENERAL_NAMES_new());
  MUSTER_RETURN_IF_ERROR(AddName(*names, GEN_URI, fields.uri));
  for (const std::string& name : fields.dns_names) {
    MUSTER_RETURN_IF_ERROR(CheckDnsName(name));
    MUSTER_RETURN_IF_ERROR(AddName(*names, GEN_DNS, name));
  }
  for (const std::string& address : fields.ip_addresses) {
    MUSTER_RETURN_IF_ERROR(AddIpAddress(*names, address));
  }
  if (X509_add1_ext_i2d(&certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) !=
      1) {
    return OpenSslError("name a certificate");
  }
  return absl::OkStatus();
}

// In the notation of OpenSSL's configuration.
absl::Status AddExtensions(const CertificateFields& fields, X509* issuer, X509& certificate) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, &certificate, nullptr, nullptr, 0);
  std::vector<std::pair<int, const char*>> extensions = {
      {NID_basic_constraints,
       fields.authority ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE"},
      {NID_key_usage,
       fields.authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature"},
      {NID_subject_key_identifier, "hash"}};
  if (!fields.authority) {
    extensions.emplace_back(NID_ext_key_usage,
                            fields.server ? "serverAuth,clientAuth" : "clientAuth");
    extensions.emplace_back(NID_authority_key_identifier, "keyid:always");
  }
  for (const auto& [id, value] : extensions) {
    const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, id, value));
    if (extension == nullptr || X509_add_ext(&certificate, extension.get(), -1) != 1) {
      return OpenSslError(absl::StrCat("add ", OBJ_nid2sn(id), " to a certificate"));
    }
  }
  return absl::OkStatus();
}

bool SetSubject(const std::string& common_name, X509& certificate) {
  const auto add = [&](const char* field, const std::string& text) {
    return X509_NAME_add_entry_by_txt(X509_get_subject_name(&certificate), field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(text.data()),
                                      static_cast<int>(text.size()), -1, 0) == 1;
  };
  return add("O", "Muster") && add("CN", common_name);
}

// Positive, and no other certificate has it.
bool SetSerialNumber(X509& certificate) {
  std::array<unsigned char, kSerialBytes> bytes;
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] = (bytes[0] & 0x7F) | 0x40;
  const std::unique_ptr<BIGNUM, OpenSslFree<BN_free>> number(
      BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  return number != nullptr &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(&certificate)) != nullptr;
}

bool SetTimes(const CertificateFields& fields, X509& certificate) {
  return ASN1_TIME_set(X509_getm_notBefore(&certificate), absl::ToTimeT(fields.not_before)) !=
             nullptr &&
         ASN1_TIME_set(X509_getm_notAfter(&certificate), absl::ToTimeT(fields.not_after)) !=
             nullptr;
}

}  // namespace

absl::StatusOr<KeyPtr> NewKey() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpenSslError("make a key");
  return key;
}

absl::StatusOr<CertificatePtr> SignCertificate(const CertificateFields& fields, EVP_PKEY& key,
                                               const Signer& signer) {
  CertificatePtr certificate(X509_new());
  X509* issuer = signer.certificate == nullptr ? certificate.get() : signer.certificate;
  const bool filled = certificate != nullptr && X509_set_version(certificate.get(), kVersion3) &&
                      SetSerialNumber(*certificate) && SetTimes(fields, *certificate) &&
                      SetSubject(fields.common_name, *certificate) &&
                      X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer)) &&
                      X509_set_pubkey(certificate.get(), &key);
  if (!filled) return OpenSslError("fill a certificate");
  MUSTER_RETURN_IF_ERROR(AddExtensions(fields, issuer, *certificate));
  MUSTER_RETURN_IF_ERROR(AddAlternativeNames(fields, *certificate));
  if (X509_sign(certificate.get(), signer.key, EVP_sha256()) == 0) {
    return OpenSslError("sign a certificate");
  }
  return certificate;
}

}  // namespace muster::certs
