#include "base/json_string.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "base/text.h"

namespace muster {
namespace {

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
    const size_t size = CharacterBytes(text);
    if (size == 0) {
      absl::StrAppendFormat(json, "\\\\x%02X", first);
    } else if (size == 1) {
      AppendAscii(text[0], json);
    } else {
      AppendCharacter(text.substr(0, size), json);
    }
    text.remove_prefix(std::max<size_t>(size, 1));
  }
  json->push_back('"');
}

}  // namespace muster
