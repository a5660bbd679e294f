#include "client/ctl/token_ids.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace muster::ctl {
namespace {

constexpr size_t kShown = 32;  // bytes of a wrong word

absl::Status Refuse(absl::string_view word) {
  return absl::InvalidArgumentError(absl::StrCat("wants token ids like 1,2,3 or [1, 2, 3], not '",
                                                 word.substr(0, kShown),
                                                 word.size() > kShown ? "..." : "", "'"));
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text) {
  absl::string_view list = absl::StripAsciiWhitespace(text);
  const bool opens = list.size() > 1 && list.front() == '[';
  if (opens != (list.size() > 1 && list.back() == ']')) return Refuse(list);
  if (opens) list = absl::StripAsciiWhitespace(list.substr(1, list.size() - 2));
  std::vector<uint32_t> tokens;
  for (absl::string_view part : absl::StrSplit(list, ',')) {
    // Two commas have nothing between them, and the last of a list has nothing behind it.
    if (absl::StripAsciiWhitespace(part).empty()) return Refuse(list);
    for (absl::string_view word :
         absl::StrSplit(part, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty())) {
      uint32_t token = 0;
      if (!absl::ascii_isdigit(word[0]) || !absl::SimpleAtoi(word, &token)) return Refuse(word);
      tokens.push_back(token);
    }
  }
  return tokens;
}

}  // namespace muster::ctl
