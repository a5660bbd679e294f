#include "worker/device/block_digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <set>
#include <vector>

namespace muster {
namespace {

std::vector<std::byte> RandomBytes(size_t bytes, uint32_t seed) {
  std::minstd_rand random(seed);
  std::vector<std::byte> data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random() >> 8);
  return data;
}

uint64_t DigestOf(const std::vector<std::byte>& data) {
  BlockDigest digest;
  digest.Add(data.data(), data.size());
  return digest.value();
}

TEST(BlockDigestTest, IsWhatTheReferenceComputesWhereverTheBytesLie) {
  const std::vector<std::byte> data = RandomBytes(64 * 40 + 7, 1);
  for (const size_t offset : {0, 1, 7}) {
    BlockDigest fast, reference;
    fast.Add(data.data() + offset, 64 * 40);
    reference.AddStripesReference(data.data() + offset, 40);
    EXPECT_EQ(fast.value(), reference.value()) << "offset " << offset;
  }
}

TEST(BlockDigestTest, CopiesWhatItReadsWhereverThatGoes) {
  const std::vector<std::byte> data = RandomBytes(64 * 40 + 7, 1);
  alignas(32) std::byte to[64 * 40 + 7 + 64];
  for (const size_t offset : {0, 1, 16, 32}) {
    std::fill(std::begin(to), std::end(to), std::byte{0});
    BlockDigest digest;
    digest.AddCopying(data.data(), data.size(), to + offset);
    EXPECT_EQ(digest.value(), DigestOf(data)) << "offset " << offset;
    EXPECT_TRUE(std::equal(data.begin(), data.end(), to + offset)) << "offset " << offset;
    EXPECT_EQ(to[offset + data.size()], std::byte{0}) << "offset " << offset;
  }
}

TEST(BlockDigestTest, DoesNotDependOnThePiecesThatAreAdded) {
  const std::vector<std::byte> data = RandomBytes(64 * 9 + 5, 2);
  BlockDigest digest;
  digest.Add(data.data(), 64 * 2);
  digest.Add(data.data() + 64 * 2, 0);
  digest.Add(data.data() + 64 * 2, 64 * 7 + 5);
  EXPECT_EQ(digest.value(), DigestOf(data));
}

TEST(BlockDigestTest, EveryBitCounts) {
  std::vector<std::byte> data = RandomBytes(64 * 3 + 9, 3);
  std::set<uint64_t> seen = {DigestOf(data)};
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    const std::byte mask{static_cast<uint8_t>(1 << bit % 8)};
    data[bit / 8] ^= mask;
    EXPECT_TRUE(seen.insert(DigestOf(data)).second) << "bit " << bit;
    data[bit / 8] ^= mask;
  }
}

TEST(BlockDigestTest, SeesSwappedStripesAndSignsThatAllTurn) {
  const std::vector<std::byte> data = RandomBytes(64 * 128, 4);
  std::set<uint64_t> seen = {DigestOf(data)};
  for (const size_t distance : {1, 2, 64}) {
    std::vector<std::byte> swapped = data;
    std::swap_ranges(swapped.begin(), swapped.begin() + 64, swapped.begin() + 64 * distance);
    EXPECT_TRUE(seen.insert(DigestOf(swapped)).second) << "distance " << distance;
  }
  std::vector<std::byte> turned = data;
  for (size_t i = 3; i < turned.size(); i += 4) turned[i] ^= std::byte{0x80};
  EXPECT_TRUE(seen.insert(DigestOf(turned)).second);
}

TEST(BlockDigestTest, TellsZerosOfDifferentLengthApart) {
  std::set<uint64_t> seen;
  for (size_t stripes = 0; stripes < 100; ++stripes) {
    EXPECT_TRUE(seen.insert(DigestOf(std::vector<std::byte>(stripes * 64))).second) << stripes;
  }
}

}  // namespace
}  // namespace muster
