#include "base/yaml_string.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace muster {
namespace {

// What YAML 1.1 reads as a truth value or as nothing.
constexpr std::array kWords = {"y",    "n",     "yes",  "no",  "on", "off",
                               "true", "false", "null", "inf", "nan"};

// A number, a date and a time begin with a digit, a sign or a point.
bool BeginsPlain(char c) { return absl::ascii_isalpha(c) || c == '/' || c == '_'; }

bool StaysPlain(char c) {
  return absl::ascii_isalnum(c) || c == '/' || c == '_' || c == '.' || c == '-';
}

bool IsPlain(absl::string_view text) {
  if (text.empty() || !BeginsPlain(text[0])) return false;
  if (!std::all_of(text.begin(), text.end(), StaysPlain)) return false;
  return std::none_of(kWords.begin(), kWords.end(), [text](absl::string_view word) {
    return absl::EqualsIgnoreCase(word, text);
  });
}

// A character of two or three bytes that a reader would refuse, or take for the end of the line.
struct Escaped {
  absl::string_view bytes;
  absl::string_view escape;
};
constexpr Escaped kEscaped[] = {{"\xE2\x80\xA8", "\\u2028"},
                                {"\xE2\x80\xA9", "\\u2029"},
                                {"\xEF\xBB\xBF", "\\uFEFF"},
                                {"\xEF\xBF\xBE", "\\uFFFE"},
                                {"\xEF\xBF\xBF", "\\uFFFF"}};

// Moves the first character of `text` to `quoted`.
void TakeCharacter(absl::string_view& text, std::string& quoted) {
  const auto byte = static_cast<unsigned char>(text[0]);
  for (const auto& [bytes, escape] : kEscaped) {
    if (!absl::StartsWith(text, bytes)) continue;
    absl::StrAppend(&quoted, escape);
    text.remove_prefix(bytes.size());
    return;
  }
  const bool is_c1 = byte == 0xC2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xA0;
  if (is_c1) {
    quoted += absl::StrFormat("\\x%02X", static_cast<unsigned char>(text[1]));
    text.remove_prefix(2);
    return;
  }
  if (byte == '"' || byte == '\\') {
    quoted += '\\';
    quoted += text[0];
  } else if (byte < 0x20 || byte == 0x7F) {
    quoted += absl::StrFormat("\\x%02X", byte);
  } else {
    quoted += text[0];
  }
  text.remove_prefix(1);
}

}  // namespace

std::string YamlString(absl::string_view text) {
  if (IsPlain(text)) return std::string(text);
  std::string quoted = "\"";
  while (!text.empty()) TakeCharacter(text, quoted);
  return quoted + "\"";
}

}  // namespace muster
