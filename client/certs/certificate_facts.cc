#include "client/certs/certificate_facts.h"

#include <arpa/inet.h>

#include <array>
#include <ctime>

#include "client/certs/requested_identity.h"

namespace muster::certs {
namespace {

std::string TextOf(const X509_NAME* name) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &bytes);
  return std::string(bytes, static_cast<size_t>(size));
}

std::string TextOf(const ASN1_STRING* text) {
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<size_t>(ASN1_STRING_length(text)));
}

std::string AddressOf(const ASN1_OCTET_STRING* bytes) {
  std::array<char, INET6_ADDRSTRLEN> text = {};
  const int family = ASN1_STRING_length(bytes) == 4 ? AF_INET : AF_INET6;
  const bool known = family == AF_INET || ASN1_STRING_length(bytes) == 16;
  if (known) inet_ntop(family, ASN1_STRING_get0_data(bytes), text.data(), text.size());
  return text.data();
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&parts));
}

void AddAlternativeNames(const X509& certificate, CertificateFacts& facts) {
  const NamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) facts.uris.push_back(TextOf(name->d.uniformResourceIdentifier));
    if (name->type == GEN_DNS) facts.dns_names.push_back(TextOf(name->d.dNSName));
    if (name->type == GEN_IPADD) facts.ip_addresses.push_back(AddressOf(name->d.iPAddress));
  }
}

bool IsAuthority(const X509& certificate) {
  const std::unique_ptr<BASIC_CONSTRAINTS, OpenSslFree<BASIC_CONSTRAINTS_free>> constraints(
      static_cast<BASIC_CONSTRAINTS*>(
          X509_get_ext_d2i(&certificate, NID_basic_constraints, nullptr, nullptr)));
  return constraints != nullptr && constraints->ca != 0;
}

}  // namespace

CertificateFacts FactsOf(const X509& certificate) {
  CertificateFacts facts = {.subject = TextOf(X509_get_subject_name(&certificate)),
                            .issuer = TextOf(X509_get_issuer_name(&certificate)),
                            .not_before = TimeOf(X509_get0_notBefore(&certificate)),
                            .not_after = TimeOf(X509_get0_notAfter(&certificate)),
                            .authority = IsAuthority(certificate)};
  AddAlternativeNames(certificate, facts);
  if (const auto identity = TlsIdentityOf(facts.uris); identity.ok()) {
    facts.identity = *identity;
    facts.trust_domain = identity->trust_domain;
  } else if (facts.uris.size() == 1) {
    facts.trust_domain = ParseAuthorityUri(facts.uris[0]).value_or("");
  }
  return facts;
}

std::string FormatDate(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M UTC", time, absl::UTCTimeZone());
}

}  // namespace muster::certs
