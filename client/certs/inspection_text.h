// What `musterctl certs show` says of a certificate, to people and to programs.
#ifndef MUSTER_CLIENT_CERTS_INSPECTION_TEXT_H_
#define MUSTER_CLIENT_CERTS_INSPECTION_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/time.h"
#include "client/certs/inspection.h"

namespace muster::certs {

// A fact per line.
std::string InspectionText(const Inspection& inspection, absl::Time now);

nlohmann::ordered_json InspectionJson(const Inspection& inspection, absl::Time now);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_INSPECTION_TEXT_H_
