// Readiness as a list of checks, each with its reason, the way Kubernetes' own components say it.
#ifndef MUSTER_BASE_ADMIN_HEALTH_CHECK_H_
#define MUSTER_BASE_ADMIN_HEALTH_CHECK_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/admin/admin_route.h"

namespace muster {

struct HealthCheck {
  std::string name;  // one word
  bool passes = false;
  std::string reason;  // one line, whether it passes or not
};

bool AllPass(const std::vector<HealthCheck>& checks);

// 200 when all pass, else 503. "?verbose" lists all of them ("[+]epoch: ..."), otherwise only those
// that do not pass; `what` is the last line's subject, such as "readyz".
AdminResponse HealthAnswer(absl::string_view what, const std::vector<HealthCheck>& checks,
                           const AdminRequest& request);

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_HEALTH_CHECK_H_
