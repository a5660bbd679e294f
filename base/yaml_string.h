#ifndef MUSTER_BASE_YAML_STRING_H_
#define MUSTER_BASE_YAML_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace muster {

// `text`, which is UTF-8, as YAML that every reader of YAML 1.1 and 1.2 takes for this very string:
// plain where it can be nothing else, otherwise in double quotes. One line.
std::string YamlString(absl::string_view text);

}  // namespace muster

#endif  // MUSTER_BASE_YAML_STRING_H_
