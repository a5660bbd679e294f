#include "base/admin/http_request.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace muster {
namespace {

constexpr absl::string_view kLineEnd = "\r\n";
constexpr absl::string_view kHeadEnd = "\r\n\r\n";

bool IsTokenCharacter(unsigned char c) {
  return absl::ascii_isalnum(c) ||
         absl::string_view("!#$%&'*+-.^_`|~").find(c) != std::string::npos;
}

bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenCharacter);
}

bool IsFieldValue(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c == '\t' || (c >= ' ' && c != 0x7f); });
}

bool IsTarget(absl::string_view text) {
  return absl::StartsWith(text, "/") && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isgraph(c);
         });
}

// The status of a refusal, or 0.
int ParseRequestLine(absl::string_view line, const HttpLimits& limits, HttpRequest& request) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || !IsToken(words[0])) return 400;
  if (words[1].size() > limits.target_bytes) return 414;
  if (!IsTarget(words[1])) return 400;
  if (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0") {
    return absl::StartsWith(words[2], "HTTP/") ? 505 : 400;
  }
  if (words[0] != "GET" && words[0] != "HEAD") return 405;
  request.head = words[0] == "HEAD";
  request.keep_alive = words[2] == "HTTP/1.1";
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(words[1], absl::MaxSplits('?', 1));
  request.request = {.path = std::string(parts.first), .query = std::string(parts.second)};
  return 0;
}

struct FieldsSeen {
  int hosts = 0;
};

int ParseField(absl::string_view line, FieldsSeen& seen, HttpRequest& request) {
  const size_t colon = line.find(':');
  if (colon == absl::string_view::npos || !IsToken(line.substr(0, colon))) return 400;
  const absl::string_view name = line.substr(0, colon);
  const absl::string_view value = absl::StripAsciiWhitespace(line.substr(colon + 1));
  if (!IsFieldValue(value)) return 400;
  if (absl::EqualsIgnoreCase(name, "host")) ++seen.hosts;
  if (absl::EqualsIgnoreCase(name, "transfer-encoding")) return 413;
  if (absl::EqualsIgnoreCase(name, "content-length") && value != "0") return 413;
  if (absl::EqualsIgnoreCase(name, "connection")) {
    for (absl::string_view option : absl::StrSplit(value, ',')) {
      if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(option), "close")) {
        request.keep_alive = false;
      }
    }
  }
  return 0;
}

}  // namespace

bool AdminRequest::Asks(absl::string_view name) const {
  for (absl::string_view parameter : absl::StrSplit(query, '&')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(parameter, absl::MaxSplits('=', 1));
    if (parts.first == name) return parts.second != "0" && parts.second != "false";
  }
  return false;
}

std::optional<size_t> EndOfHead(absl::string_view received) {
  const size_t end = received.find(kHeadEnd);
  if (end == absl::string_view::npos) return std::nullopt;
  return end + kHeadEnd.size();
}

HttpRequest ParseHead(absl::string_view head, const HttpLimits& limits) {
  HttpRequest request;
  std::vector<absl::string_view> lines =
      absl::StrSplit(absl::StripSuffix(head, kHeadEnd), kLineEnd);
  request.refusal = ParseRequestLine(lines.front(), limits, request);
  if (request.refusal == 0 && lines.size() - 1 > limits.fields) request.refusal = 431;
  FieldsSeen seen;
  for (size_t i = 1; i < lines.size() && request.refusal == 0; ++i) {
    request.refusal = ParseField(lines[i], seen, request);
  }
  const bool needs_host = request.keep_alive;
  if (request.refusal == 0 && (seen.hosts > 1 || (needs_host && seen.hosts == 0))) {
    request.refusal = 400;
  }
  if (request.refusal != 0) request.keep_alive = false;
  return request;
}

}  // namespace muster
