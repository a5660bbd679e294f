// What a command reports: a table for people, JSON or YAML for programs.
#ifndef MUSTER_CLIENT_CTL_REPORT_H_
#define MUSTER_CLIENT_CTL_REPORT_H_

#include <iosfwd>
#include <string>

#include "base/wire_json.h"

namespace muster::ctl {

enum class Output { kTable, kJson, kYaml };

// A YAML document in block style, every line ended. Strings are quoted wherever a reader could take
// them for something else; bytes that are no UTF-8 become U+FFFD; numbers that are not finite are
// null, as in JSON.
std::string ToYaml(const Json& json);

// One of a program's reports, flushed: a line of JSON, or a document of YAML after "---". Not for
// kTable.
void WriteReport(std::ostream& out, Output output, const Json& json);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_REPORT_H_
