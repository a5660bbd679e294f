#include "worker/device/cpu/cpu_block_copier.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/device/block_digest.h"

namespace muster {
namespace {

uint64_t DigestOf(const std::byte* data, size_t bytes) {
  BlockDigest digest;
  digest.Add(data, bytes);
  return digest.value();
}

class CpuBlockCopierTest : public ::testing::Test {
 protected:
  static constexpr size_t kBlockBytes = 64 * 5;
  static constexpr size_t kBlocks = 4;

  CpuBlockCopierTest() {
    const auto seed = std::random_device()();
    RecordProperty("seed", static_cast<int>(seed));
    std::mt19937 random(seed);
    for (std::byte& byte : memory_) byte = static_cast<std::byte>(random());
  }
  std::byte* block(size_t i) { return memory_.data() + i * kBlockBytes; }

  CpuBlockCopier copier_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(kBlocks * kBlockBytes);
};

TEST_F(CpuBlockCopierTest, DigestsEachBlock) {
  const std::vector<const std::byte*> blocks = {block(2), block(0), block(2)};
  std::vector<uint64_t> digests(3);
  ASSERT_OK(copier_.Digest(blocks, kBlockBytes, absl::MakeSpan(digests)));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(digests[i], DigestOf(blocks[i], kBlockBytes)) << i;
}

TEST_F(CpuBlockCopierTest, CopiesAndDigestsWhatArrived) {
  const std::vector<std::byte> before = memory_;
  std::vector<uint64_t> digests(2);
  ASSERT_OK(copier_.Copy({block(3), block(1)}, {block(0), block(2)}, kBlockBytes,
                         absl::MakeSpan(digests)));
  EXPECT_TRUE(std::equal(block(0), block(1), before.data() + 3 * kBlockBytes));
  EXPECT_TRUE(std::equal(block(2), block(3), before.data() + 1 * kBlockBytes));
  EXPECT_EQ(digests[0], DigestOf(block(0), kBlockBytes));
  EXPECT_EQ(digests[1], DigestOf(block(2), kBlockBytes));
}

TEST_F(CpuBlockCopierTest, BlocksWithoutBytesHaveTheDigestOfNothing) {
  std::vector<uint64_t> digests(1);
  ASSERT_OK(copier_.Copy({block(3)}, {block(0)}, 0, absl::MakeSpan(digests)));
  EXPECT_EQ(digests[0], BlockDigest().value());
}

TEST_F(CpuBlockCopierTest, KnowsWhatAPlainCopyReaches) {
  const double measured = copier_.Bandwidth();
  EXPECT_GT(measured, 1e8);
  EXPECT_EQ(copier_.Bandwidth(), measured);
}

}  // namespace
}  // namespace muster
