// An answer as HTTP/1.1 puts it on the wire.
#ifndef MUSTER_BASE_ADMIN_HTTP_RESPONSE_H_
#define MUSTER_BASE_ADMIN_HTTP_RESPONSE_H_

#include <string>

#include "absl/time/time.h"
#include "base/admin/admin_route.h"

namespace muster {

struct HttpAnswerOptions {
  bool with_body = true;  // false for HEAD, which is told of the body's length all the same
  bool keep_alive = false;
  absl::Time now;
};

// Never cached, never sniffed, never framed. Nothing in it comes from a request.
std::string WriteAnswer(const AdminResponse& response, const HttpAnswerOptions& options);

// One line that says what was wrong with a request, with the status as its code.
AdminResponse Refusal(int status);

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_HTTP_RESPONSE_H_
