#include "worker/model/cpu/cpu_device_speed.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

TEST(MeasureCpu, FindsSpeedsThatAMachineCanHave) {
  CpuDevice device({.threads = 2});
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    ASSERT_OK_AND_ASSIGN(const DeviceSpeed speed, MeasureCpu(device, dtype));
    EXPECT_GT(speed.read_bytes_per_second, 1e8);
    EXPECT_LT(speed.read_bytes_per_second, 1e13);
    EXPECT_GT(speed.matrix_flops_per_second, 1e8);
    EXPECT_LT(speed.matrix_flops_per_second, 1e15);
  }
}

TEST(MeasureCpu, GivesBackAllThatItTook) {
  CpuDevice device({.threads = 1, .memory_limit = uint64_t{2} << 30});
  const uint64_t free = device.Report().free_bytes;
  ASSERT_OK(MeasureCpu(device, DType::kFloat32));
  EXPECT_GE(device.Report().free_bytes, free - (64 << 20));
}

TEST(MeasureCpu, SaysThatThereIsNoMemoryForIt) {
  CpuDevice device({.threads = 1, .memory_limit = 1 << 20});
  EXPECT_STATUS(MeasureCpu(device, DType::kFloat32), absl::StatusCode::kResourceExhausted,
                "measurement");
  EXPECT_EQ(device.Report().free_bytes, uint64_t{1} << 20);
}

}  // namespace
}  // namespace muster
