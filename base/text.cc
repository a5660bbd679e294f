#include "base/text.h"

#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace muster {

std::string WithCommas(uint64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string Counted(uint64_t number, absl::string_view noun) {
  return absl::StrCat(WithCommas(number), " ", noun, number == 1 ? "" : "s");
}

std::string InUnits(absl::Duration duration) {
  static constexpr std::pair<const char*, absl::Duration> kUnits[] = {
      {"h", absl::Hours(1)},
      {"min", absl::Minutes(1)},
      {"s", absl::Seconds(1)},
      {"ms", absl::Milliseconds(1)}};
  std::vector<std::string> parts;
  for (const auto& [unit, length] : kUnits) {
    if (duration < length || parts.size() == 2) continue;
    const int64_t count = absl::IDivDuration(duration, length, &duration);
    parts.push_back(absl::StrCat(WithCommas(static_cast<uint64_t>(count)), " ", unit));
  }
  return parts.empty() ? "0 ms" : absl::StrJoin(parts, " ");
}

std::string QuotedId(absl::string_view id) { return absl::StrCat("'", absl::CHexEscape(id), "'"); }

}  // namespace muster
