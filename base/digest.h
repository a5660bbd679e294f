// A 64-bit digest for agreement between ranks: stable across processes, builds
// and machines; not for security.
#ifndef MUSTER_BASE_DIGEST_H_
#define MUSTER_BASE_DIGEST_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace muster {

// FNV-1a over bytes with a final avalanche
// (http://www.isthe.com/chongo/tech/comp/fnv/).
class Digest {
 public:
  // Adds the eight bytes of `value`, least significant first.
  void Add(uint64_t value);
  // Adds the length, then the bytes, so that ("ab","c") and ("a","bc") differ.
  void Add(absl::string_view bytes);

  uint64_t value() const;

 private:
  void AddByte(uint8_t byte);

  uint64_t state_ = 0xcbf29ce484222325;
};

// 16 hexadecimal digits.
std::string DigestString(uint64_t digest);
// The inverse; false when `text` is not 16 hexadecimal digits.
bool ParseDigest(absl::string_view text, uint64_t* digest);

}  // namespace muster

#endif  // MUSTER_BASE_DIGEST_H_
