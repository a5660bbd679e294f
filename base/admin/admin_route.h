// What the admin port is asked, and what a route answers.
#ifndef MUSTER_BASE_ADMIN_ADMIN_ROUTE_H_
#define MUSTER_BASE_ADMIN_ADMIN_ROUTE_H_

#include <functional>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace muster {

inline constexpr absl::string_view kPlainText = "text/plain; charset=utf-8";

// Nothing but what the route itself says is allowed to load, run or frame its answer.
inline constexpr absl::string_view kNothingAllowed =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct AdminRequest {
  std::string path;   // "/readyz": as it was sent, never decoded
  std::string query;  // what follows "?", never decoded; may be empty

  // True for "?name", "?name=", "?a&name=1"; "name=0" and "name=false" ask for the opposite.
  bool Asks(absl::string_view name) const;
};

struct AdminResponse {
  int status = 200;  // 200 or 503; the server itself answers with the others
  std::string content_type{kPlainText};
  std::string body;
  // Content-Security-Policy: of one line.
  std::string policy{kNothingAllowed};
};

// Called on the server's one thread: it answers in milliseconds and waits for nothing that may
// hang, since /livez waits behind it.
using AdminRoute = std::function<AdminResponse(const AdminRequest&)>;
using AdminRoutes = std::map<std::string, AdminRoute>;  // by path

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_ADMIN_ROUTE_H_
