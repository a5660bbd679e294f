#include "base/json_string.h"

#include <cstddef>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace muster {
namespace {

// Bytes of the well-formed character that `text` begins with, which is no ASCII; 0 where there is
// none: Unicode 15, table 3-7.
size_t CharacterSize(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto is_in = [&](size_t i, int least, int most) {
    return i < text.size() && byte(i) >= least && byte(i) <= most;
  };
  const auto continues = [&](size_t i) { return is_in(i, 0x80, 0xBF); };
  const uint8_t first = byte(0);
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

void AppendAscii(char c, std::string* json) {
  switch (c) {
    case '"':
      json->append("\\\"");
      break;
    case '\\':
      json->append("\\\\");
      break;
    case '\n':
      json->append("\\n");
      break;
    case '\r':
      json->append("\\r");
      break;
    case '\t':
      json->append("\\t");
      break;
    default:
      if (c < 0x20 || c == 0x7F) {
        absl::StrAppendFormat(json, "\\u%04x", c);
      } else {
        json->push_back(c);
      }
  }
}

// Some readers end a line at U+0085, U+2028 and U+2029, and terminals obey U+0080 to U+009F.
void AppendCharacter(absl::string_view character, std::string* json) {
  const auto last = static_cast<uint8_t>(character.back());
  if (character[0] == '\xC2' && last <= 0x9F) {
    absl::StrAppendFormat(json, "\\u%04x", last);
  } else if (character == "\xE2\x80\xA8" || character == "\xE2\x80\xA9") {
    absl::StrAppendFormat(json, "\\u%04x", 0x2028 + (last & 1));
  } else {
    json->append(character.data(), character.size());
  }
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* json) {
  json->push_back('"');
  while (!text.empty()) {
    const auto first = static_cast<uint8_t>(text[0]);
    size_t size = 1;
    if (first < 0x80) {
      AppendAscii(text[0], json);
    } else if (size = CharacterSize(text); size > 0) {
      AppendCharacter(text.substr(0, size), json);
    } else {
      absl::StrAppendFormat(json, "\\\\x%02X", first);
      size = 1;
    }
    text.remove_prefix(size);
  }
  json->push_back('"');
}

}  // namespace muster
