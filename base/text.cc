#include "base/text.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace muster {
namespace {

constexpr size_t kMaxNameBytes = 128;

}  // namespace

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

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '-';
         });
}

// Unicode 15, table 3-7.
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto is_in = [&](size_t i, int least, int most) {
    return i < text.size() && byte(i) >= least && byte(i) <= most;
  };
  const auto continues = [&](size_t i) { return is_in(i, 0x80, 0xBF); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool second = is_in(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF);
    return second && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool second = is_in(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace muster
