#ifndef MUSTER_CLIENT_CTL_TOKEN_IDS_H_
#define MUSTER_CLIENT_CTL_TOKEN_IDS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster::ctl {

// Token ids of 32 bits: a JSON list, or numbers with commas, spaces or line breaks between them.
// INVALID_ARGUMENT: there is none, or the word that is none.
absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TOKEN_IDS_H_
