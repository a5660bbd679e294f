#ifndef MUSTER_WORKER_DEVICE_BLOCK_DIGEST_H_
#define MUSTER_WORKER_DEVICE_BLOCK_DIGEST_H_

#include <cstddef>
#include <cstdint>

namespace muster {

// A 64-bit digest of a KV block, as fast as the block can be read from a cache: stripes of eight
// 64-bit words, each accumulated in a lane of its own as in XXH3
// (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), under keys that also depend on
// the stripe's number. Finds accidents, not forgers. Alike in all processes of a host.
class BlockDigest {
 public:
  static constexpr size_t kStripe = 64;

  // Further bytes, not aligned. Every call but the last adds a multiple of kStripe.
  void Add(const std::byte* data, size_t bytes);
  // The same, and writes to `copy` what it has read, past the caches where it can: other threads
  // see it after whatever they synchronise with next.
  void AddCopying(const std::byte* data, size_t bytes, std::byte* copy);
  uint64_t value() const;

  // What Add does to whole stripes, in plain loops: the specification.
  void AddStripesReference(const std::byte* data, size_t stripes);

 private:
  static constexpr int kLanes = 8;

  // `copy` may be null.
  void AddStripes(const std::byte* data, size_t stripes, std::byte* copy);

  alignas(32) uint64_t lanes_[kLanes] = {};
  uint64_t stripes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_BLOCK_DIGEST_H_
