// Files that are made whole, for secrets: their mode is right from the beginning.
#ifndef MUSTER_CLIENT_CERTS_NEW_FILE_H_
#define MUSTER_CLIENT_CERTS_NEW_FILE_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace muster::certs {

// Errors name the file: ALREADY_EXISTS, or as of the failed system call.
absl::Status WriteNewFile(const std::string& path, absl::string_view bytes, mode_t mode);

}  // namespace muster::certs

#endif  // MUSTER_CLIENT_CERTS_NEW_FILE_H_
