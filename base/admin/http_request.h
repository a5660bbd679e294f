// The head of an HTTP/1 request, as far as a server of GET and HEAD needs it.
#ifndef MUSTER_BASE_ADMIN_HTTP_REQUEST_H_
#define MUSTER_BASE_ADMIN_HTTP_REQUEST_H_

#include <cstddef>
#include <optional>

#include "absl/strings/string_view.h"
#include "base/admin/admin_route.h"

namespace muster {

struct HttpLimits {
  size_t head_bytes = 8192;    // request line and fields, up to the empty line
  size_t target_bytes = 1024;  // "/path?query"
  size_t fields = 64;
};

// A request without a body: RFC 9112, strict. What is not plain GET or HEAD is refused, never
// guessed at: no body, no folded field, no bare CR, no target but "/path?query" of visible ASCII.
struct HttpRequest {
  int refusal = 0;    // the status to answer with, and then to close; 0 when the request is sound
  bool head = false;  // HEAD: the answer goes without its body
  bool keep_alive = false;  // the caller may send another
  AdminRequest request;
};

// Where the head in `received` ends, behind its empty line; nothing when it is not all there yet.
std::optional<size_t> EndOfHead(absl::string_view received);

// `head` ends behind its empty line.
HttpRequest ParseHead(absl::string_view head, const HttpLimits& limits);

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_HTTP_REQUEST_H_
