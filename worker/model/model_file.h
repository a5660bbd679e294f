// The files of a model's directory.
#ifndef MUSTER_WORKER_MODEL_MODEL_FILE_H_
#define MUSTER_WORKER_MODEL_MODEL_FILE_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace muster {

// NOT_FOUND when there is no such directory.
absl::Status CheckModelDirectory(const std::string& directory);

// The last part of its path.
std::string DirectoryName(const std::string& directory);

// The contents of DIRECTORY/NAME, or none where there is no such file. Refuses more than
// `max_bytes`, and what is no ordinary file.
absl::StatusOr<std::optional<std::string>> ReadModelFile(const std::string& directory,
                                                         const std::string& name, size_t max_bytes);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_FILE_H_
