#include "worker/cache/kv_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

// 2 * 3 * 2 * 16 * 8 * 4 = 6 KiB a block, which no power of two of bytes divides into pieces.
constexpr KvLayout kLayout{
    .layers = 3, .kv_heads = 2, .block_size = 16, .head_dim = 8, .dtype = DType::kFloat32};

class KvArenaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(source_, KvArena::Create(kLayout, 4, device_));
    ASSERT_OK_AND_ASSIGN(target_, KvArena::Create(kLayout, 6, device_));
    ASSERT_OK_AND_ASSIGN(peer_, KvArenaPeer::Open(source_->handle(), kLayout, device_));
    for (int64_t i = 0; i < source_->block_bytes(); ++i) {
      source_->block(2)[i] = static_cast<std::byte>(i * 7 + i / 256);
    }
  }
  absl::Status Pull(int32_t from, uint64_t stamp, int32_t to) {
    return PullBlock(*peer_, from, stamp, *target_, to, absl::InfiniteFuture(), nullptr);
  }

  CpuDevice device_{{}};
  std::shared_ptr<KvArena> source_, target_;
  std::unique_ptr<KvArenaPeer> peer_;
};

TEST_F(KvArenaTest, ASealedBlockArrivesAsItWas) {
  source_->Seal(2, 7);
  ASSERT_OK(Pull(2, 7, 5));
  EXPECT_EQ(std::memcmp(source_->block(2), target_->block(5),
                        static_cast<size_t>(source_->block_bytes())),
            0);
}

TEST_F(KvArenaTest, ABlockThatChangedAfterItsSealIsRefused) {
  source_->Seal(2, 7);
  source_->block(2)[6143] ^= std::byte{1};
  const absl::Status pulled = Pull(2, 7, 5);
  EXPECT_STATUS(pulled, absl::StatusCode::kDataLoss, "KV block 2");
  EXPECT_EQ(DetailOf(pulled).reason, ErrorReason::kKvCorrupt);
}

TEST_F(KvArenaTest, ASealOfAnotherStampIsWaitedOutUntilTheDeadline) {
  source_->Seal(2, 6);
  EXPECT_STATUS(PullBlock(*peer_, 2, 7, *target_, 5, absl::InfinitePast(), nullptr),
                absl::StatusCode::kDeadlineExceeded, "was not sealed");
}

TEST_F(KvArenaTest, WhoeverWaitsForASealCanBeStopped) {
  const std::atomic<bool> stopped{true};
  EXPECT_STATUS(PullBlock(*peer_, 2, 7, *target_, 5, absl::InfiniteFuture(), &stopped),
                absl::StatusCode::kAborted, "given up");
}

TEST_F(KvArenaTest, ACopyWaitsForItsSeal) {
  absl::Status pulled = absl::UnknownError("not yet");
  std::thread puller([&] { pulled = Pull(2, 7, 5); });
  source_->block(2)[17] = std::byte{99};
  source_->Seal(2, 6);
  source_->block(2)[18] = std::byte{98};
  source_->Seal(2, 7);
  puller.join();
  ASSERT_OK(pulled);
  EXPECT_EQ(target_->block(5)[17], std::byte{99});
  EXPECT_EQ(target_->block(5)[18], std::byte{98});
}

TEST_F(KvArenaTest, BlocksThatAreNotThereAreRefused) {
  EXPECT_STATUS(Pull(4, 7, 5), absl::StatusCode::kOutOfRange, "KV block 4 of 4");
  EXPECT_STATUS(Pull(2, 7, 6), absl::StatusCode::kOutOfRange, "to block 6 of 6");
}

TEST_F(KvArenaTest, AnArenaOfAnotherLayoutIsNotOpened) {
  KvLayout other = kLayout;
  other.kv_heads = 1;
  EXPECT_STATUS(KvArenaPeer::Open(source_->handle(), other, device_),
                absl::StatusCode::kFailedPrecondition, "another layout");
  EXPECT_STATUS(KvArenaPeer::Open("nonsense", kLayout, device_), absl::StatusCode::kUnavailable,
                "no handle");
}

TEST_F(KvArenaTest, BlocksOfAModelWithoutLayersHaveNoBytes) {
  KvLayout none = kLayout;
  none.layers = 0;
  ASSERT_OK_AND_ASSIGN(const auto empty, KvArena::Create(none, 2, device_));
  ASSERT_OK_AND_ASSIGN(const auto peer, KvArenaPeer::Open(empty->handle(), none, device_));
  empty->Seal(0, 1);
  EXPECT_OK(PullBlock(*peer, 0, 1, *empty, 1, absl::InfiniteFuture(), nullptr));
}

TEST_F(KvArenaTest, WhatWasOpenedStaysReadableWhenItsOwnerIsGone) {
  source_->Seal(2, 7);
  source_.reset();
  EXPECT_OK(Pull(2, 7, 0));
}

}  // namespace
}  // namespace muster
