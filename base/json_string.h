// Text of any bytes as a string of JSON.
#ifndef MUSTER_BASE_JSON_STRING_H_
#define MUSTER_BASE_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace muster {

// Appends `text` with its quotes. Control characters and line ends of every kind are escaped, so
// that it stays on one line; a byte that is not part of well-formed UTF-8 becomes the four
// characters \xHH.
void AppendJsonString(absl::string_view text, std::string* json);

}  // namespace muster

#endif  // MUSTER_BASE_JSON_STRING_H_
