// A file of flags: one mapping of names to values, in YAML or in JSON, which YAML includes.
#ifndef MUSTER_BASE_FLAG_FILE_H_
#define MUSTER_BASE_FLAG_FILE_H_

#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace muster {

struct FlagFileEntry {
  std::string name;   // as it stands there, without "--"
  std::string value;  // as it stands there, without quotes; empty for null
  int line = 0;       // from 1
};

// In the order of the file. At most 1 MiB.
// INVALID_ARGUMENT, one line: neither YAML nor JSON (says where), more than one document, no
// mapping, a name that is no text, a value that is a list or a mapping.
absl::StatusOr<std::vector<FlagFileEntry>> ReadFlagFile(std::istream& in);

}  // namespace muster

#endif  // MUSTER_BASE_FLAG_FILE_H_
