#include "worker/device/cpu/cpu_memory.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

constexpr char kMeminfo[] =
    "MemTotal:       24684084 kB\n"
    "MemFree:         1000000 kB\n"
    "MemAvailable:   20000000 kB\n";

TEST(CpuMemoryTest, ReadsWhatTheMachineHas) {
  const MemoryInfo info = ParseMemoryInfo(kMeminfo, "", "");
  EXPECT_EQ(info.total_bytes, uint64_t{24684084} << 10);
  EXPECT_EQ(info.available_bytes, uint64_t{20000000} << 10);
}

TEST(CpuMemoryTest, IsBoundByTheControlGroup) {
  const MemoryInfo info = ParseMemoryInfo(kMeminfo, "1000000\n", "300000\n");
  EXPECT_EQ(info.total_bytes, 1000000u);
  EXPECT_EQ(info.available_bytes, 700000u);
}

TEST(CpuMemoryTest, HasNothingLeftInAFullControlGroup) {
  EXPECT_EQ(ParseMemoryInfo(kMeminfo, "1000000\n", "1000001\n").available_bytes, 0u);
}

TEST(CpuMemoryTest, TakesMaxForNoLimit) {
  EXPECT_EQ(ParseMemoryInfo(kMeminfo, "max\n", "300000\n").available_bytes,
            uint64_t{20000000} << 10);
}

}  // namespace
}  // namespace muster
