// Numbers, times and names as people read them, and what texts may be made of.
#ifndef MUSTER_BASE_TEXT_H_
#define MUSTER_BASE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace muster {

// "1,456".
std::string WithCommas(uint64_t number);

// "1 sequence", "1,456 sequences".
std::string Counted(uint64_t number, absl::string_view noun);

// The two largest units that are not 0, from hours to milliseconds: "10 min", "1 min 30 s",
// "24 h", "1 s 500 ms"; "0 ms" for less than a millisecond. `duration` is finite.
std::string InUnits(absl::Duration duration);

// 'bench-7': on one line and printable, whatever bytes it is made of.
std::string QuotedId(absl::string_view id);

// A name as workers have one: 1 to 128 letters, digits, '.', '_', '-'.
bool IsName(absl::string_view text);

// Bytes of the well-formed UTF-8 character that `text`, which is not empty, begins with; 0 where
// there is none.
size_t CharacterBytes(absl::string_view text);

}  // namespace muster

#endif  // MUSTER_BASE_TEXT_H_
