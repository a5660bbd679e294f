#include "client/certs/inspection_text.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/ctl/text.h"

namespace muster::certs {
namespace {

constexpr int kLabelWidth = 11;

void AppendFact(absl::string_view label, absl::string_view fact, std::string& text) {
  if (fact.empty()) return;
  // Whoever made the certificate chose what stands in it, terminals' commands perhaps.
  absl::StrAppend(&text, "  ", ctl::PadRight(label, kLabelWidth), absl::Utf8SafeCHexEscape(fact),
                  "\n");
}

std::string RoleText(const CertificateFacts& facts) {
  if (facts.authority) return absl::StrCat("authority of ", facts.trust_domain);
  if (!facts.identity.has_value()) return "none: no URI names one";
  const std::string& id = facts.identity->id;
  return absl::StrCat(TlsRoleName(facts.identity->role), id.empty() ? "" : " ", id);
}

std::string LongDuration(absl::Duration duration) {
  const double years = absl::ToDoubleHours(duration) / 24 / 365.25;
  return years < 2 ? ctl::HumanDuration(duration) : absl::StrFormat("%.1f years", years);
}

std::string ValidityText(const CertificateFacts& facts, absl::Time now) {
  const std::string dates =
      absl::StrCat(FormatDate(facts.not_before), " to ", FormatDate(facts.not_after));
  if (facts.HasExpired(now)) {
    return absl::StrCat(dates, ", EXPIRED ", LongDuration(now - facts.not_after), " ago");
  }
  if (facts.IsYetToCome(now)) {
    return absl::StrCat(dates, ", begins in ", LongDuration(facts.not_before - now));
  }
  return absl::StrCat(dates, ", ", LongDuration(facts.not_after - now), " left");
}

std::string CheckText(const std::optional<absl::Status>& check, absl::string_view good) {
  if (!check.has_value()) return "";
  return check->ok() ? std::string(good) : absl::StrCat("DOES NOT FIT: ", check->message());
}

nlohmann::ordered_json CheckJson(const std::optional<absl::Status>& check) {
  if (!check.has_value()) return nullptr;
  return check->ok();
}

std::string JsonTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

}  // namespace

std::string InspectionText(const Inspection& inspection, absl::Time now) {
  const CertificateFacts& facts = inspection.facts;
  std::string text = absl::StrCat("CERTIFICATE  ", inspection.path, "\n");
  AppendFact("role", RoleText(facts), text);
  AppendFact("identity", absl::StrJoin(facts.uris, ", "), text);
  AppendFact("subject", facts.subject, text);
  AppendFact("issuer", facts.issuer, text);
  AppendFact("DNS names", absl::StrJoin(facts.dns_names, ", "), text);
  AppendFact("addresses", absl::StrJoin(facts.ip_addresses, ", "), text);
  AppendFact("valid", ValidityText(facts, now), text);
  AppendFact("key", CheckText(inspection.key, "fits"), text);
  AppendFact("chain", CheckText(inspection.chain, "fits ca.crt"), text);
  return text;
}

nlohmann::ordered_json InspectionJson(const Inspection& inspection, absl::Time now) {
  const CertificateFacts& facts = inspection.facts;
  const bool issued = facts.identity.has_value();
  nlohmann::ordered_json json = {{"path", inspection.path},
                                 {"subject", facts.subject},
                                 {"issuer", facts.issuer},
                                 {"authority", facts.authority},
                                 {"trust_domain", facts.trust_domain},
                                 {"role", issued ? TlsRoleName(facts.identity->role) : ""},
                                 {"id", issued ? facts.identity->id : ""},
                                 {"uris", facts.uris},
                                 {"dns_names", facts.dns_names},
                                 {"ip_addresses", facts.ip_addresses},
                                 {"not_before", JsonTime(facts.not_before)},
                                 {"not_after", JsonTime(facts.not_after)},
                                 {"left_s", absl::ToInt64Seconds(facts.not_after - now)},
                                 {"expired", facts.HasExpired(now)},
                                 {"yet_to_come", facts.IsYetToCome(now)},
                                 {"key_fits", CheckJson(inspection.key)},
                                 {"chain_fits", CheckJson(inspection.chain)},
                                 {"problems", inspection.Problems(now)}};
  return json;
}

}  // namespace muster::certs
