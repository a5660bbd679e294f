#include "worker/cache/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_block_copier.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

constexpr KvLayout kLayout = {
    .layers = 2, .kv_heads = 1, .block_size = 16, .head_dim = 8, .dtype = DType::kBFloat16};

class KvCacheTest : public ::testing::Test {
 protected:
  std::unique_ptr<KvCache> Create() {
    auto cache = KvCache::Create({.layout = kLayout, .max_sequences = 3, .max_local_blocks = 4},
                                 device_, ledger_);
    EXPECT_OK(cache);
    return *std::move(cache);
  }

  absl::Status AttachArena(KvCache& cache, int64_t blocks) {
    auto arena = KvArena::Create(cache.options().layout, blocks,
                                 {.device = device_, .host = device_, .copier = copier_});
    return arena.ok() ? cache.Attach(*std::move(arena)) : arena.status();
  }

  // What kernels see after a flush.
  absl::Status Flush(KvCache& cache) {
    if (stream_ == nullptr) stream_ = *device_.CreateStream();
    const absl::Status flushed = cache.Flush(*stream_);
    return flushed.ok() ? stream_->Synchronize() : flushed;
  }
  static std::vector<int32_t> TablesOf(const KvCache& cache, int entries) {
    const int32_t* const tables = cache.descriptor()->block_tables;
    return {tables, tables + entries};
  }

  CpuDevice device_{CpuDeviceOptions{}};
  CpuBlockCopier copier_;
  Ledger ledger_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(KvCacheTest, KernelsFindNoBlockBeforeTheArenaIsThere) {
  const auto cache = Create();
  EXPECT_EQ(cache->blocks(), 0);
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(KvBlock(*cache->descriptor(), kLayout, 0, 0), nullptr);
  EXPECT_STATUS(cache->SetBlock(0, 0, 0), absl::StatusCode::kOutOfRange,
                "KV block 0 of an arena of 0");
}

TEST_F(KvCacheTest, TheDescriptorStaysWhereItIsAndComesAlive) {
  const auto cache = Create();
  const KvDescriptor* const descriptor = cache->descriptor();
  ASSERT_OK(AttachArena(*cache, 5));
  EXPECT_EQ(cache->descriptor(), descriptor);
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(descriptor->num_blocks, 5);
  ASSERT_OK(cache->SetBlock(2, 3, 4));
  EXPECT_EQ(KvBlock(*descriptor, kLayout, 2, 3), nullptr);
  EXPECT_EQ(cache->BlockAt(2, 3), 4);
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(KvBlock(*descriptor, kLayout, 2, 3),
            static_cast<std::byte*>(descriptor->base) + 4 * KvBlockBytes(kLayout));
  EXPECT_EQ(KvBlock(*descriptor, kLayout, 2, 2), nullptr);
  EXPECT_STATUS(AttachArena(*cache, 5), absl::StatusCode::kFailedPrecondition, "exists already");
}

TEST_F(KvCacheTest, ClearingASequenceLeavesItsNeighbours) {
  const auto cache = Create();
  ASSERT_OK(AttachArena(*cache, 5));
  for (int sequence = 0; sequence < 3; ++sequence) {
    for (int i = 0; i < 4; ++i) ASSERT_OK(cache->SetBlock(sequence, i, sequence));
  }
  ASSERT_OK(Flush(*cache));
  ASSERT_OK(cache->ClearSequence(1));
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(TablesOf(*cache, 12), (std::vector<int32_t>{0, 0, 0, 0, -1, -1, -1, -1, 2, 2, 2, 2}));
}

TEST_F(KvCacheTest, ASharedBlockIsUsedOnce) {
  const auto cache = Create();
  ASSERT_OK(AttachArena(*cache, 5));
  ASSERT_OK(cache->SetBlock(0, 0, 3));
  ASSERT_OK(cache->SetBlock(0, 1, 1));
  ASSERT_OK(cache->SetBlock(1, 2, 4));
  EXPECT_EQ(cache->used_blocks(), 3);
  ASSERT_OK(cache->ShareBlocks(1, 0, 2));  // what slot 1 had is gone
  EXPECT_EQ(cache->used_blocks(), 2);
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(TablesOf(*cache, 8), (std::vector<int32_t>{3, 1, -1, -1, 3, 1, -1, -1}));
  ASSERT_OK(cache->ClearSequence(0));
  EXPECT_EQ(cache->used_blocks(), 2);
  ASSERT_OK(cache->ClearSequence(1));
  EXPECT_EQ(cache->used_blocks(), 0);
  EXPECT_STATUS(cache->ShareBlocks(0, 0, 1), absl::StatusCode::kOutOfRange, "cannot share");
  EXPECT_STATUS(cache->ShareBlocks(0, 1, 5), absl::StatusCode::kOutOfRange, "share 5");
  EXPECT_STATUS(cache->ShareBlocks(0, 3, 1), absl::StatusCode::kOutOfRange, "slot 3");
}

TEST_F(KvCacheTest, AReplacedBlockKeepsItsContents) {
  const auto cache = Create();
  const auto stream = device_.CreateStream();
  ASSERT_OK(stream);
  ASSERT_OK(AttachArena(*cache, 5));
  ASSERT_OK(cache->SetBlock(0, 0, 3));
  ASSERT_OK(cache->ShareBlocks(1, 0, 1));
  ASSERT_OK(Flush(*cache));
  const size_t bytes = static_cast<size_t>(KvBlockBytes(kLayout));
  std::memset(KvBlock(*cache->descriptor(), kLayout, 0, 0), 7, bytes);
  ASSERT_OK(cache->ReplaceBlock(**stream, 1, 0, 2));
  ASSERT_OK((*stream)->Synchronize());
  ASSERT_OK(Flush(*cache));
  EXPECT_EQ(cache->used_blocks(), 2);
  const std::byte* copy = KvBlock(*cache->descriptor(), kLayout, 1, 0);
  EXPECT_EQ(copy, static_cast<std::byte*>(cache->descriptor()->base) + 2 * bytes);
  EXPECT_EQ(std::count(copy, copy + bytes, std::byte{7}), static_cast<std::ptrdiff_t>(bytes));
  EXPECT_STATUS(cache->ReplaceBlock(**stream, 1, 1, 4), absl::StatusCode::kOutOfRange,
                "no KV block 1 of slot 1 to replace");
}

TEST_F(KvCacheTest, RefusesWhatTheTablesDoNotHave) {
  const auto cache = Create();
  ASSERT_OK(AttachArena(*cache, 5));
  EXPECT_STATUS(cache->SetBlock(3, 0, 0), absl::StatusCode::kOutOfRange, "sequence slot 3 of 3");
  EXPECT_STATUS(cache->SetBlock(-1, 0, 0), absl::StatusCode::kOutOfRange, "sequence slot -1");
  EXPECT_STATUS(cache->SetBlock(0, 4, 0), absl::StatusCode::kOutOfRange, "at most 4");
  EXPECT_STATUS(cache->SetBlock(0, -1, 0), absl::StatusCode::kOutOfRange, "KV block -1");
  EXPECT_STATUS(cache->SetBlock(0, 0, 5), absl::StatusCode::kOutOfRange, "an arena of 5");
  EXPECT_STATUS(cache->SetBlock(0, 0, -1), absl::StatusCode::kOutOfRange, "KV block -1");
  EXPECT_STATUS(cache->ClearSequence(3), absl::StatusCode::kOutOfRange, "sequence slot 3");
}

TEST_F(KvCacheTest, MemoryIsChargedAndGivenBack) {
  {
    const auto cache = Create();
    const uint64_t before = ledger_.total();
    ASSERT_OK(AttachArena(*cache, 5));
    EXPECT_GE(ledger_.total() - before, 5u * KvBlockBytes(kLayout));
    EXPECT_EQ(ledger_.Entries().front().tag, "kv");
    EXPECT_EQ(ledger_.Entries().size(), 1u);
  }
  EXPECT_EQ(ledger_.total(), 0u);
}

TEST_F(KvCacheTest, AModelWithoutLayersHasBlocksOfNoBytes) {
  KvLayout layout = kLayout;
  layout.layers = 0;
  ASSERT_OK_AND_ASSIGN(
      const auto cache,
      KvCache::Create({.layout = layout, .max_sequences = 1, .max_local_blocks = 2}, device_,
                      ledger_));
  ASSERT_OK(AttachArena(*cache, 3));
  EXPECT_EQ(cache->blocks(), 3);
  EXPECT_OK(cache->SetBlock(0, 1, 2));
}

TEST_F(KvCacheTest, RefusesArenasThatCannotBe) {
  const auto cache = Create();
  EXPECT_STATUS(AttachArena(*cache, 0), absl::StatusCode::kInvalidArgument, "0 blocks");
  EXPECT_STATUS(AttachArena(*cache, INT64_MAX), absl::StatusCode::kInvalidArgument, "blocks");
  EXPECT_STATUS(AttachArena(*cache, INT32_MAX), absl::StatusCode::kResourceExhausted, "");
  EXPECT_EQ(cache->blocks(), 0);
  EXPECT_OK(AttachArena(*cache, 1));
}

}  // namespace
}  // namespace muster
