#include "base/admin/health_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace muster {

bool AllPass(const std::vector<HealthCheck>& checks) {
  return std::all_of(checks.begin(), checks.end(),
                     [](const HealthCheck& check) { return check.passes; });
}

AdminResponse HealthAnswer(absl::string_view what, const std::vector<HealthCheck>& checks,
                           const AdminRequest& request) {
  const bool passes = AllPass(checks);
  const bool verbose = request.Asks("verbose");
  AdminResponse response{.status = passes ? 200 : 503};
  if (passes && !verbose) {
    response.body = "ok\n";
    return response;
  }
  for (const HealthCheck& check : checks) {
    if (check.passes && !verbose) continue;
    absl::StrAppend(&response.body, check.passes ? "[+]" : "[-]", check.name, ": ", check.reason,
                    "\n");
  }
  absl::StrAppend(&response.body, what, passes ? " check passed\n" : " check failed\n");
  return response;
}

}  // namespace muster
