#include "worker/cache/kv_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_block_copier.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

// 2 * 3 * 2 * 16 * 8 * 4 = 6 KiB a block, which no power of two of bytes divides into pieces.
constexpr KvLayout kLayout{
    .layers = 3, .kv_heads = 2, .block_size = 16, .head_dim = 8, .dtype = DType::kFloat32};

// Keeps how many blocks each call had, of which there are two to a batch; and does `before_copy`.
class WatchedCopier final : public BlockCopier {
 public:
  absl::Status Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                      absl::Span<uint64_t> digests) override {
    digested.push_back(blocks.size());
    return fault.ok() ? copier_.Digest(blocks, block_bytes, digests) : fault;
  }
  absl::Status Copy(absl::Span<const std::byte* const> from, absl::Span<std::byte* const> to,
                    size_t block_bytes, absl::Span<uint64_t> digests) override {
    copied.push_back(from.size());
    before_copy();
    return fault.ok() ? copier_.Copy(from, to, block_bytes, digests) : fault;
  }
  size_t batch_bytes() const override { return 3 * KvBlockBytes(kLayout) - 1; }
  double Bandwidth() override { return 1; }

  std::vector<size_t> digested, copied;
  std::function<void()> before_copy = [] {};
  absl::Status fault;

 private:
  CpuBlockCopier copier_;
};

class KvArenaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(source_, KvArena::Create(kLayout, 6, means_));
    ASSERT_OK_AND_ASSIGN(target_, KvArena::Create(kLayout, 8, means_));
    ASSERT_OK_AND_ASSIGN(peer_, KvArenaPeer::Open(source_->handle(), kLayout, means_));
    for (int64_t i = 0; i < 6 * source_->block_bytes(); ++i) {
      source_->data()[i] = static_cast<std::byte>(i * 7 + i / 256);
    }
  }
  BlockPull PullOf(int32_t from, uint64_t stamp, int32_t to) const {
    return {.from = peer_.get(), .seal = {.block = from, .stamp = stamp}, .to_block = to};
  }
  absl::Status Pull(int32_t from, uint64_t stamp, int32_t to) {
    return PullBlocks({PullOf(from, stamp, to)}, *target_, absl::InfiniteFuture(), nullptr);
  }
  // Block i of the source to block i + 1 of the target, sealed with stamp i + 1.
  absl::Status PullAll(const std::atomic<bool>* stopped = nullptr) {
    std::vector<BlockPull> pulls(5);
    for (int32_t i = 0; i < 5; ++i) pulls[i] = PullOf(i, i + 1, i + 1);
    return PullBlocks(pulls, *target_, absl::InfiniteFuture(), stopped);
  }
  absl::Status SealAll() { return source_->Seal({{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}}); }
  bool Arrived(int32_t from, int32_t to) const {
    return std::memcmp(source_->block(from), target_->block(to),
                       static_cast<size_t>(source_->block_bytes())) == 0;
  }

  CpuDevice device_{{}};
  WatchedCopier copier_;
  const KvMeans means_{.device = device_, .host = device_, .copier = copier_};
  std::shared_ptr<KvArena> source_, target_;
  std::unique_ptr<KvArenaPeer> peer_;
};

TEST_F(KvArenaTest, ASealedBlockArrivesAsItWas) {
  ASSERT_OK(source_->Seal({{2, 7}}));
  ASSERT_OK(Pull(2, 7, 5));
  EXPECT_TRUE(Arrived(2, 5));
}

TEST_F(KvArenaTest, ManyBlocksArriveInBatches) {
  ASSERT_OK(SealAll());
  ASSERT_OK(PullAll());
  for (int32_t i = 0; i < 5; ++i) EXPECT_TRUE(Arrived(i, i + 1)) << i;
  const std::vector<size_t> batches = {2, 2, 1};
  EXPECT_EQ(copier_.digested, batches);
  EXPECT_EQ(copier_.copied, batches);
}

TEST_F(KvArenaTest, BlocksOfSeveralArenasArriveTogether) {
  ASSERT_OK_AND_ASSIGN(const auto other, KvArena::Create(kLayout, 2, means_));
  ASSERT_OK_AND_ASSIGN(const auto peer, KvArenaPeer::Open(other->handle(), kLayout, means_));
  std::fill_n(other->block(1), other->block_bytes(), std::byte{42});
  ASSERT_OK(other->Seal({{1, 8}}));
  ASSERT_OK(source_->Seal({{2, 7}}));
  ASSERT_OK(PullBlocks({PullOf(2, 7, 5), {.from = peer.get(), .seal = {1, 8}, .to_block = 4}},
                       *target_, absl::InfiniteFuture(), nullptr));
  EXPECT_TRUE(Arrived(2, 5));
  EXPECT_EQ(target_->block(4)[6143], std::byte{42});
  EXPECT_EQ(copier_.copied, std::vector<size_t>{2});
}

TEST_F(KvArenaTest, ABlockThatChangedAfterItsSealIsRefused) {
  ASSERT_OK(source_->Seal({{1, 6}, {2, 7}}));
  source_->block(2)[6143] ^= std::byte{1};
  const absl::Status pulled =
      PullBlocks({PullOf(1, 6, 4), PullOf(2, 7, 5)}, *target_, absl::InfiniteFuture(), nullptr);
  EXPECT_STATUS(pulled, absl::StatusCode::kDataLoss, "KV block 2");
  EXPECT_EQ(DetailOf(pulled).reason, ErrorReason::kKvCorrupt);
}

TEST_F(KvArenaTest, SealsThatAreFalseAreFound) {
  source_->FalsifySeals();
  ASSERT_OK(source_->Seal({{2, 7}}));
  EXPECT_STATUS(Pull(2, 7, 5), absl::StatusCode::kDataLoss, "another checksum");
}

TEST_F(KvArenaTest, ASealOfAnotherStampIsWaitedOutUntilTheDeadline) {
  ASSERT_OK(source_->Seal({{2, 6}}));
  EXPECT_STATUS(PullBlocks({PullOf(2, 7, 5)}, *target_, absl::InfinitePast(), nullptr),
                absl::StatusCode::kDeadlineExceeded, "KV block 2 was not sealed");
}

TEST_F(KvArenaTest, WhoeverWaitsForASealCanBeStopped) {
  std::atomic<bool> stopped{false};
  absl::Status pulled;
  std::thread puller(
      [&] { pulled = PullBlocks({PullOf(2, 7, 5)}, *target_, absl::InfiniteFuture(), &stopped); });
  stopped = true;
  puller.join();
  EXPECT_STATUS(pulled, absl::StatusCode::kAborted, "given up");
}

TEST_F(KvArenaTest, WhoeverIsStoppedCopiesNoFurtherBatch) {
  std::atomic<bool> stopped{false};
  copier_.before_copy = [&] { stopped = copier_.copied.size() == 2; };
  ASSERT_OK(SealAll());
  EXPECT_STATUS(PullAll(&stopped), absl::StatusCode::kAborted, "given up");
  EXPECT_EQ(copier_.copied.size(), 2u);
  EXPECT_TRUE(Arrived(3, 4));
  EXPECT_FALSE(Arrived(4, 5));
}

TEST_F(KvArenaTest, ACopyWaitsForItsSeal) {
  absl::Status pulled = absl::UnknownError("not yet");
  std::thread puller([&] { pulled = Pull(2, 7, 5); });
  source_->block(2)[17] = std::byte{99};
  const absl::Status before = source_->Seal({{2, 6}});
  source_->block(2)[18] = std::byte{98};
  const absl::Status sealed = source_->Seal({{2, 7}});
  puller.join();
  ASSERT_OK(before);
  ASSERT_OK(sealed);
  ASSERT_OK(pulled);
  EXPECT_EQ(target_->block(5)[17], std::byte{99});
  EXPECT_EQ(target_->block(5)[18], std::byte{98});
}

TEST_F(KvArenaTest, AFaultOfTheDeviceSealsNothingAndIsReported) {
  copier_.fault = absl::InternalError("the device is gone");
  EXPECT_STATUS(source_->Seal({{2, 7}}), absl::StatusCode::kInternal, "gone");
  EXPECT_STATUS(PullBlocks({PullOf(2, 7, 5)}, *target_, absl::InfinitePast(), nullptr),
                absl::StatusCode::kDeadlineExceeded, "was not sealed");
  copier_.fault = absl::OkStatus();
  ASSERT_OK(source_->Seal({{2, 7}}));
  copier_.fault = absl::InternalError("the device is gone");
  EXPECT_STATUS(Pull(2, 7, 5), absl::StatusCode::kInternal, "gone");
}

TEST_F(KvArenaTest, BlocksThatAreNotThereAreRefusedBeforeAnyIsCopied) {
  ASSERT_OK(source_->Seal({{2, 7}}));
  const auto refused = [&](const BlockPull& pull) {
    return PullBlocks({PullOf(2, 7, 5), pull}, *target_, absl::InfiniteFuture(), nullptr);
  };
  EXPECT_STATUS(refused(PullOf(6, 7, 5)), absl::StatusCode::kOutOfRange, "KV block 6 of 6");
  EXPECT_STATUS(refused(PullOf(-1, 7, 5)), absl::StatusCode::kOutOfRange, "KV block -1 of 6");
  EXPECT_STATUS(refused(PullOf(2, 7, 8)), absl::StatusCode::kOutOfRange, "to block 8 of 8");
  EXPECT_STATUS(refused(PullOf(2, 7, -1)), absl::StatusCode::kOutOfRange, "to block -1 of 8");
  EXPECT_TRUE(copier_.copied.empty());
}

TEST_F(KvArenaTest, AnArenaOfAnotherLayoutIsNotOpened) {
  KvLayout other = kLayout;
  other.kv_heads = 1;
  EXPECT_STATUS(KvArenaPeer::Open(source_->handle(), other, means_),
                absl::StatusCode::kFailedPrecondition, "another layout");
}

TEST_F(KvArenaTest, WhatIsNoHandleIsNotOpened) {
  const std::string good = source_->handle();
  for (const std::string& bad : {std::string("nonsense"), std::string("non;sense"), good + ";",
                                 good.substr(0, good.find(';'))}) {
    EXPECT_STATUS(KvArenaPeer::Open(bad, kLayout, means_), absl::StatusCode::kUnavailable,
                  "no handle");
  }
}

TEST_F(KvArenaTest, BlocksThatAreShorterThanTheSealsSayAreNotOpened) {
  ASSERT_OK_AND_ASSIGN(const auto smaller, KvArena::Create(kLayout, 5, means_));
  const std::string mixed = smaller->handle().substr(0, smaller->handle().find(';')) +
                            source_->handle().substr(source_->handle().find(';'));
  EXPECT_STATUS(KvArenaPeer::Open(mixed, kLayout, means_), absl::StatusCode::kFailedPrecondition,
                "another layout");
}

TEST_F(KvArenaTest, BlocksOfAModelWithoutLayersHaveNoBytes) {
  KvLayout none = kLayout;
  none.layers = 0;
  ASSERT_OK_AND_ASSIGN(const auto empty, KvArena::Create(none, 2, means_));
  ASSERT_OK_AND_ASSIGN(const auto peer, KvArenaPeer::Open(empty->handle(), none, means_));
  ASSERT_OK(empty->Seal({{0, 1}}));
  EXPECT_OK(PullBlocks({{.from = peer.get(), .seal = {0, 1}, .to_block = 1}}, *empty,
                       absl::InfiniteFuture(), nullptr));
}

TEST_F(KvArenaTest, WhatWasOpenedStaysReadableWhenItsOwnerIsGone) {
  ASSERT_OK(source_->Seal({{2, 7}}));
  source_.reset();
  EXPECT_OK(Pull(2, 7, 0));
}

}  // namespace
}  // namespace muster
