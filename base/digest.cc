#include "base/digest.h"

#include <charconv>

#include "absl/strings/str_cat.h"

namespace muster {

void Digest::AddByte(uint8_t byte) {
  state_ ^= byte;
  state_ *= 0x100000001b3;
}

void Digest::Add(uint64_t value) {
  for (int i = 0; i < 8; ++i) AddByte(static_cast<uint8_t>(value >> (8 * i)));
}

void Digest::Add(absl::string_view bytes) {
  Add(static_cast<uint64_t>(bytes.size()));
  for (char c : bytes) AddByte(static_cast<uint8_t>(c));
}

uint64_t Digest::value() const {
  uint64_t h = state_;
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccd;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

std::string DigestString(uint64_t digest) {
  return absl::StrCat(absl::Hex(digest, absl::kZeroPad16));
}

bool ParseDigest(absl::string_view text, uint64_t* digest) {
  if (text.size() != 16) return false;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *digest, 16);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace muster
