#include "kernels/block_digest_cuda.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/elementwise_cuda_test_support.h"

namespace muster {
namespace {

using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FreshSeed;
using ::muster::testing::ToDevice;

// The lanes of BlockDigest, in plain loops.
uint64_t DigestOf(const std::byte* data, int64_t bytes) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  constexpr uint64_t kKeys[] = {0xc2b2ae3d27d4eb4f, 0x9e3779b185ebca87, 0x165667b19e3779f9,
                                0x85ebca77c2b2ae63, 0x27d4eb2f165667c5, 0xa0761d6478bd642f,
                                0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3};
  uint64_t lanes[kDigestLanes] = {};
  for (int64_t at = 0; at < bytes; at += 64) {
    const uint64_t stripe = static_cast<uint64_t>(at / 64);
    for (int lane = 0; lane < kDigestLanes; ++lane) {
      uint64_t word = 0;
      std::memcpy(&word, data + at + 8 * lane, sizeof(word));
      const uint64_t keyed = word ^ (kKeys[lane] + stripe * kStep);
      lanes[lane] += (keyed & 0xffffffff) * (keyed >> 32);
      lanes[lane ^ 1] += word;
    }
  }
  return FoldDigestLanes(lanes, bytes);
}

// Blocks that lie in the arena in another order than they are asked for, with one between any two
// that nobody asks for.
class Blocks {
 public:
  Blocks(int64_t blocks, int64_t block_bytes, uint32_t seed)
      : block_bytes_(static_cast<size_t>(block_bytes)),
        bytes_(static_cast<size_t>(2 * blocks) * block_bytes_) {
    std::mt19937 random(seed);
    for (std::byte& byte : bytes_) byte = static_cast<std::byte>(random());
    for (int64_t i = 0; i < blocks; ++i) offsets_.push_back((2 * (blocks - 1 - i)) * block_bytes);
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }
  const std::vector<int64_t>& offsets() const { return offsets_; }
  uint64_t Digest(size_t block) const {
    return DigestOf(bytes_.data() + offsets_[block], static_cast<int64_t>(block_bytes_));
  }
  // Of the blocks in an arena on the device.
  std::vector<void*> Pointers(const DeviceBytes& arena) const {
    std::vector<void*> pointers;
    for (const int64_t offset : offsets_) pointers.push_back(arena.as<std::byte>() + offset);
    return pointers;
  }

 private:
  size_t block_bytes_;
  std::vector<std::byte> bytes_;
  std::vector<int64_t> offsets_;
};

// The copies are in place and nothing else was written.
void ExpectCopied(const Blocks& blocks, const DeviceBytes& arena, size_t block_bytes) {
  std::vector<std::byte> expected(blocks.bytes().size(), std::byte{0xFF});
  for (const int64_t offset : blocks.offsets()) {
    if (block_bytes != 0) {
      std::memcpy(expected.data() + offset, blocks.bytes().data() + offset, block_bytes);
    }
  }
  std::vector<std::byte> got(expected.size());
  arena.Download(got.data());
  EXPECT_TRUE(expected == got);
  EXPECT_TRUE(arena.GuardsIntact());
}

void ExpectDigests(int64_t count, int64_t block_bytes, bool copy, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << count << " of " << block_bytes << " bytes"
                                    << (copy ? ", copied" : "") << ", seed " << seed);
  const Blocks blocks(count, block_bytes, seed);
  const DeviceBytes source(blocks.bytes().data(), blocks.bytes().size());
  const DeviceBytes target(blocks.bytes().size());
  const DeviceBytes from = ToDevice(blocks.Pointers(source));
  const DeviceBytes to = ToDevice(blocks.Pointers(target));
  const DeviceBytes lanes(static_cast<size_t>(count) * kDigestLanes * sizeof(uint64_t));
  CudaFinish(BlockDigestCuda({.from = from.as<const void*>(),
                              .to = copy ? to.as<void*>() : nullptr,
                              .blocks = count,
                              .block_bytes = block_bytes,
                              .lanes = lanes.as<uint64_t>()},
                             nullptr));
  std::vector<uint64_t> sums(static_cast<size_t>(count) * kDigestLanes);
  lanes.Download(sums.data());
  EXPECT_TRUE(lanes.GuardsIntact());
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    EXPECT_EQ(FoldDigestLanes(sums.data() + i * kDigestLanes, block_bytes), blocks.Digest(i)) << i;
  }
  if (copy) ExpectCopied(blocks, target, static_cast<size_t>(block_bytes));
}

// What BlockDigest says of the same bytes.
TEST(BlockDigestCudaTest, ReferenceKnowsTheAnswerOfTheHost) {
  std::vector<std::byte> data(64 * 777);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i * 37 % 251);
  EXPECT_EQ(DigestOf(data.data(), static_cast<int64_t>(data.size())), 0xfe0416a790d4031d);
}

TEST(BlockDigestCudaTest, IsThatOfTheReferenceForEverySize) {
  const uint32_t seed = FreshSeed();
  for (const bool copy : {false, true}) {
    for (const int64_t stripes : {0, 1, 2, 63, 64, 255, 256, 511, 512, 513, 1024, 5000, 32768}) {
      for (const int64_t count : {1, 3}) ExpectDigests(count, stripes * 64, copy, seed);
    }
    ExpectDigests(1000, 64, copy, seed);
    ExpectDigests(70, 65536 + 64, copy, seed);
  }
}

TEST(BlockDigestCudaTest, RefusesWhatItCannotDigest) {
  EXPECT_EQ(BlockDigestCuda({.blocks = 1, .block_bytes = 65}, nullptr).error,
            cudaErrorInvalidValue);
  EXPECT_EQ(BlockDigestCuda({.blocks = 65536, .block_bytes = 64}, nullptr).error,
            cudaErrorInvalidValue);
  EXPECT_TRUE(BlockDigestCuda({.blocks = 0, .block_bytes = 64}, nullptr).ok());
}

}  // namespace
}  // namespace muster
