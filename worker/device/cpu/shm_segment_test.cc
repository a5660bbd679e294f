#include "worker/device/cpu/shm_segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

class ShmSegmentTest : public ::testing::Test {
 protected:
  ShmSegment Create(uint64_t bytes) {
    auto segment = ShmSegment::Create(bytes, "workspace/TP", device_, ledger_);
    EXPECT_OK(segment);
    return *std::move(segment);
  }

  CpuDevice device_{CpuDeviceOptions{.memory_limit = 1 << 20}};
  Ledger ledger_;
};

TEST_F(ShmSegmentTest, IsTheSameMemoryForWhoOpensIt) {
  ShmSegment segment = Create(8192);
  ASSERT_OK_AND_ASSIGN(ShmHandle handle, ShmHandle::Decode(segment.handle().Encode()));
  ASSERT_OK_AND_ASSIGN(ShmMapping mapping, ShmMapping::Open(handle));
  EXPECT_NE(mapping.data(), segment.data());
  segment.data()[5000] = std::byte{7};
  EXPECT_EQ(mapping.data()[5000], std::byte{7});
}

TEST_F(ShmSegmentTest, IsChargedWhileItLives) {
  {
    ShmSegment segment = Create(8192);
    EXPECT_EQ(ledger_.Entries(), (std::vector<LedgerEntry>{{"workspace/TP", 8192}}));
    EXPECT_EQ(device_.Report().free_bytes, (uint64_t{1} << 20) - 8192);
  }
  EXPECT_EQ(ledger_.total(), 0u);
  EXPECT_EQ(device_.Report().free_bytes, uint64_t{1} << 20);
}

TEST_F(ShmSegmentTest, IsRefusedBeyondTheDevicesMemory) {
  EXPECT_STATUS(ShmSegment::Create(2 << 20, "workspace/TP", device_, ledger_),
                absl::StatusCode::kResourceExhausted,
                "no room for workspace/TP: wanted 2.0 MiB, 1.0 MiB free");
  EXPECT_EQ(ledger_.total(), 0u);
}

TEST_F(ShmSegmentTest, OpensForThisUserOnly) {
  ShmSegment segment = Create(4096);
  struct stat info;
  ASSERT_EQ(fstat(static_cast<int>(segment.handle().fd), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ShmSegmentTest, CannotBeShrunkUnderItsReaders) {
  ShmSegment segment = Create(8192);
  EXPECT_NE(ftruncate(static_cast<int>(segment.handle().fd), 4096), 0);
}

TEST_F(ShmSegmentTest, CannotBeOpenedAfterItsExportEnds) {
  ShmSegment segment = Create(4096);
  const ShmHandle handle = segment.handle();
  ASSERT_OK_AND_ASSIGN(ShmMapping early, ShmMapping::Open(handle));
  segment.StopExporting();
  EXPECT_STATUS(ShmMapping::Open(handle), absl::StatusCode::kUnavailable,
                "workers of one host must run as one user");
  segment.data()[9] = std::byte{3};
  EXPECT_EQ(early.data()[9], std::byte{3});
}

TEST_F(ShmSegmentTest, IsNotMistakenForAnother) {
  ShmSegment segment = Create(4096);
  ShmHandle handle = segment.handle();
  handle.nonce ^= 1;
  EXPECT_STATUS(ShmMapping::Open(handle), absl::StatusCode::kUnavailable, "another segment");
  handle = segment.handle();
  handle.bytes = 8192;
  EXPECT_STATUS(ShmMapping::Open(handle), absl::StatusCode::kUnavailable, "announced size");
  handle = segment.handle();
  handle.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_STATUS(ShmMapping::Open(handle), absl::StatusCode::kUnavailable, "no segment");
  close(static_cast<int>(handle.fd));
}

TEST(ShmHandleTest, IsRefusedWhenItCannotBeRead) {
  for (const char* text : {"", "1,2,3", "1,2,3,4,5", "0,2,3,4", "1,-2,3,4", "1,2,3,x"}) {
    EXPECT_STATUS(ShmHandle::Decode(text), absl::StatusCode::kInvalidArgument, "not a handle");
  }
}

}  // namespace
}  // namespace muster
