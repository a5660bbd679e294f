#include "base/admin/http_response.h"

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

struct StatusText {
  int status;
  absl::string_view reason;
  absl::string_view advice;
};

constexpr StatusText kStatuses[] = {
    {200, "OK", ""},
    {400, "Bad Request", "this is no HTTP/1.1 request for a path"},
    {404, "Not Found", "there is no such page here"},
    {405, "Method Not Allowed", "this port only answers GET and HEAD"},
    {413, "Content Too Large", "this port takes requests without a body"},
    {414, "URI Too Long", "the path and query are too long"},
    {431, "Request Header Fields Too Large", "the header is too large"},
    {503, "Service Unavailable", ""},
    {505, "HTTP Version Not Supported", "this port speaks HTTP/1.1"},
};

const StatusText& TextOf(int status) {
  for (const StatusText& text : kStatuses) {
    if (text.status == status) return text;
  }
  return kStatuses[1];
}

}  // namespace

std::string WriteAnswer(const AdminResponse& response, const HttpAnswerOptions& options) {
  return absl::StrCat(
      "HTTP/1.1 ", response.status, " ", TextOf(response.status).reason,
      "\r\nDate: ", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", options.now, absl::UTCTimeZone()),
      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY"
      "\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: ",
      response.policy, response.status == 405 ? "\r\nAllow: GET, HEAD" : "",
      "\r\nConnection: ", options.keep_alive ? "keep-alive" : "close", "\r\n\r\n",
      options.with_body ? response.body : "");
}

AdminResponse Refusal(int status) {
  return {.status = status, .body = absl::StrCat(TextOf(status).advice, "\n")};
}

}  // namespace muster
