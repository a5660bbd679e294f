// /statusz: a page that shows what a daemon knows of itself, and the JSON that it polls.
#ifndef MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_H_
#define MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/time.h"
#include "base/admin/admin_route.h"

namespace muster {

// What a daemon says of its own process.
struct DaemonFacts {
  std::string role;     // "coordinator" or "worker": what the page draws
  std::string name;     // of a worker; may be empty
  std::string address;  // of its services
  std::string build;
  // Why whoever reaches it can do everything; empty when it is secured, or nobody from elsewhere
  // can reach it. One sentence for people, without a full stop.
  std::string insecure;
  absl::Time started;
};

// {"role", "name", "address", "build", "insecure", "time", "uptime_ms"}: what the page expects as
// "daemon".
nlohmann::ordered_json DaemonJson(const DaemonFacts& daemon, absl::Time now);

// One line. Bytes that are no UTF-8 become U+FFFD.
std::string StatuszText(const nlohmann::ordered_json& json);

// Adds /statusz and /statusz.json. `json` gives one object: "daemon", and what the page of that
// role shows. It outlives the server's requests, and is called on the server's thread.
void AddStatusz(std::function<std::string()> json, AdminRoutes* routes);

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_H_
