#include "base/admin/statusz/statusz.h"

#include <utility>

#include "base/admin/statusz/statusz_page.h"

namespace muster {

nlohmann::ordered_json DaemonJson(const DaemonFacts& daemon, absl::Time now) {
  return {{"role", daemon.role},
          {"name", daemon.name},
          {"address", daemon.address},
          {"build", daemon.build},
          {"insecure", daemon.insecure},
          {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", now, absl::UTCTimeZone())},
          {"uptime_ms", absl::ToInt64Milliseconds(now - daemon.started)}};
}

std::string StatuszText(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void AddStatusz(std::function<std::string()> json, AdminRoutes* routes) {
  (*routes)["/statusz"] = [](const AdminRequest&) {
    return AdminResponse{.content_type = "text/html; charset=utf-8",
                         .body = std::string(kStatuszPage),
                         .policy = std::string(kStatuszPolicy)};
  };
  (*routes)["/statusz.json"] = [json = std::move(json)](const AdminRequest&) {
    return AdminResponse{.content_type = "application/json", .body = json()};
  };
}

}  // namespace muster
