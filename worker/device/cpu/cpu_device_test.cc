#include "worker/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_stream.h"

namespace muster {
namespace {

TEST(CpuDeviceTest, ReportsTheOrdinalOfItsOptions) {
  CpuDevice device({.ordinal = DeviceOrdinal(5), .threads = 2});
  const DeviceReport report = device.Report();
  EXPECT_EQ(report.kind, "cpu");
  EXPECT_EQ(report.ordinal, DeviceOrdinal(5));
  EXPECT_EQ(report.threads, 2);
  EXPECT_GT(report.total_bytes, 0u);
  EXPECT_GT(report.free_bytes, 0u);
  EXPECT_LE(report.free_bytes, report.total_bytes);
}

TEST(CpuDeviceTest, HandsOutMemoryUpToItsLimitAndTakesItBack) {
  CpuDevice device({.ordinal = DeviceOrdinal(1), .memory_limit = 1 << 20});
  Ledger ledger;
  {
    ASSERT_OK_AND_ASSIGN(Buffer most, device.Allocate(900 << 10, "weights", ledger));
    EXPECT_EQ(device.Report().free_bytes, uint64_t{124} << 10);
    EXPECT_STATUS(device.Allocate(200 << 10, "kv", ledger), absl::StatusCode::kResourceExhausted,
                  "device cpu:1 has no room for kv: wanted 200.0 KiB, 124.0 KiB free");
    EXPECT_STATUS(device.Claim(200 << 10, "workspace/STAGE"), absl::StatusCode::kResourceExhausted,
                  "workspace/STAGE");
  }
  EXPECT_EQ(ledger.total(), 0u);
  EXPECT_OK(device.Allocate(1 << 20, "kv", ledger));
}

TEST(CpuDeviceTest, RefusesMoreThanTheMachineHas) {
  CpuDevice device({});
  Ledger ledger;
  EXPECT_STATUS(device.Allocate(size_t{1} << 50, "kv", ledger),
                absl::StatusCode::kResourceExhausted, "wanted 1048576.0 GiB");
}

TEST(CpuDeviceTest, GivesZeroedAlignedMemoryOfAnySize) {
  CpuDevice device({});
  Ledger ledger;
  for (size_t bytes : {size_t{1}, size_t{4097}, (size_t{5} << 20) + 3}) {
    ASSERT_OK_AND_ASSIGN(Buffer buffer, device.Allocate(bytes, "kv", ledger));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 256, 0u);
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(buffer.as<char>()[i], 0) << i;
    buffer.as<char>()[bytes - 1] = 1;
  }
}

TEST(CpuDeviceTest, WhatIsExportedIsTheSameMemoryForWhoOpensIt) {
  CpuDevice device({});
  Ledger ledger;
  const size_t bytes = (size_t{9} << 20) + 3;  // more than the kernel is asked for at once
  ASSERT_OK_AND_ASSIGN(ExportedBuffer buffer, device.AllocateExported(bytes, "kv", ledger));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 256, 0u);
  EXPECT_EQ(buffer.handle().find_first_of(" \n"), std::string::npos);
  for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(buffer.as<char>()[i], 0) << i;
  ASSERT_OK_AND_ASSIGN(PeerMemory opened, device.OpenExported(buffer.handle()));
  EXPECT_EQ(opened.bytes(), bytes);
  EXPECT_NE(opened.data(), buffer.data());
  buffer.as<char>()[bytes - 1] = 7;
  EXPECT_EQ(static_cast<const char*>(opened.data())[bytes - 1], 7);
}

TEST(CpuDeviceTest, ExportedMemoryIsChargedAndStaysReadableForItsPeers) {
  CpuDevice device({.memory_limit = 1 << 20});
  Ledger ledger;
  PeerMemory opened;
  std::string handle;
  {
    ASSERT_OK_AND_ASSIGN(ExportedBuffer buffer, device.AllocateExported(8192, "kv", ledger));
    EXPECT_GE(ledger.total(), 8192u);
    EXPECT_LE(device.Report().free_bytes, (uint64_t{1} << 20) - 8192);
    handle = buffer.handle();
    ASSERT_OK_AND_ASSIGN(opened, device.OpenExported(handle));
    buffer.as<char>()[0] = 5;
  }
  EXPECT_EQ(ledger.total(), 0u);
  EXPECT_EQ(device.Report().free_bytes, uint64_t{1} << 20);
  EXPECT_EQ(*static_cast<const char*>(opened.data()), 5);
  EXPECT_STATUS(device.OpenExported(handle), absl::StatusCode::kUnavailable, "");
}

TEST(CpuDeviceTest, RefusesToExportMoreThanItHasAndToOpenWhatIsNoHandle) {
  CpuDevice device({.memory_limit = 1 << 20});
  Ledger ledger;
  for (const size_t bytes : {size_t{2} << 20, SIZE_MAX}) {
    EXPECT_STATUS(device.AllocateExported(bytes, "kv", ledger),
                  absl::StatusCode::kResourceExhausted, "kv");
  }
  EXPECT_EQ(ledger.total(), 0u);
  EXPECT_STATUS(device.OpenExported("1,2,3"), absl::StatusCode::kUnavailable, "no handle");
}

TEST(CpuDeviceTest, RefusesToNestCapturesAndGraphs) {
  CpuDevice device({});
  ASSERT_OK_AND_ASSIGN(auto stream, device.CreateStream());
  ASSERT_OK_AND_ASSIGN(auto graph, device.Capture(*stream, [] { return absl::OkStatus(); }));
  ASSERT_OK(device.Capture(*stream, [&] {
    EXPECT_STATUS(device.Capture(*stream, [] { return absl::OkStatus(); }),
                  absl::StatusCode::kFailedPrecondition, "being captured");
    EXPECT_STATUS(graph->Launch(*stream), absl::StatusCode::kFailedPrecondition, "inside");
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace muster
