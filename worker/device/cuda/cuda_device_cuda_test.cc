// On a machine with a GPU.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_kernels.h"
#include "kernels/cuda_status.h"
#include "tests/support/allocation_count.h"
#include "tests/support/status_matchers.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/cuda/cuda_graph.h"
#include "worker/device/cuda/cuda_test_kernels.h"
#include "worker/device/cuda/shared_library.h"

namespace muster::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = CudaDevice::Create({});
    ASSERT_OK(device);
    device_ = *std::move(device);
    auto stream = device_->CreateStream();
    ASSERT_OK(stream);
    stream_ = *std::move(stream);
    auto counter = device_->Allocate(sizeof(uint32_t), "counter", ledger_);
    ASSERT_OK(counter);
    counter_ = *std::move(counter);
  }
  // No test leaves an error of CUDA behind.
  void TearDown() override { EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess); }

  CudaDeviceStream& stream() { return CudaDeviceStream::From(*stream_); }
  absl::Status AddOne() {
    return CudaStatus(AddOneCuda(counter_.as<uint32_t>(), stream().get()), "adding one");
  }
  uint32_t Counter() {
    uint32_t value = 0;
    EXPECT_OK(device_->Copy(*stream_, &value, counter_.data(), sizeof(value)));
    EXPECT_OK(stream_->Synchronize());
    return value;
  }

  Ledger ledger_;
  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<Stream> stream_;
  Buffer counter_;
};

class SomeFault final : public CudaFault {
 public:
  absl::Status Check() override {
    ++asked;
    return status;
  }

  absl::Status status;
  int asked = 0;
};

double MedianMicroseconds(int rounds, const std::function<void()>& run) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[rounds / 2];
}

uint64_t FreeNow() {
  size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  return free;
}

TEST_F(CudaDeviceTest, ReportsWhatItIs) {
  const DeviceReport report = device_->Report();
  EXPECT_EQ(report.kind, "cuda");
  EXPECT_EQ(report.ordinal, DeviceOrdinal(0));
  EXPECT_GT(report.free_bytes, 0u);
  EXPECT_GT(report.total_bytes, report.free_bytes);
  EXPECT_EQ(device_->gpu().uuid.size(), 40u);
  EXPECT_GE(device_->multiprocessor_budget(), 1);
  std::printf("[ figures ] %s, %d multiprocessors, MPS %d, %.1f of %.1f GiB free\n",
              DescribeGpus({device_->gpu()}).c_str(), device_->gpu().multiprocessors,
              device_->mps(), report.free_bytes / 1073741824.0, report.total_bytes / 1073741824.0);
}

TEST_F(CudaDeviceTest, EveryKernelIsKnownAndMayBeLoadedAgain) {
  EXPECT_GE(CudaKernelCount(), 2u);  // those of cuda_test_kernels.cu at least
  EXPECT_OK(CudaStatus(LoadCudaKernels(), "loading kernels again"));
}

TEST_F(CudaDeviceTest, AnOrdinalPastTheLastIsRefusedOrBeginsAgain) {
  const DeviceOrdinal far(1000);
  EXPECT_STATUS(CudaDevice::Create({.ordinal = far}), absl::StatusCode::kNotFound,
                absl::StrCat("there are: cuda:0 (", device_->gpu().name));
  ASSERT_OK_AND_ASSIGN(const auto again,
                       CudaDevice::Create({.ordinal = far, .oversubscribe = true}));
  EXPECT_EQ(again->Report().ordinal, far);
}

TEST_F(CudaDeviceTest, AnAllocationThatCannotBeNamesWantedAndFreeAndLeavesNothing) {
  const uint64_t charged = ledger_.total();
  const absl::Status status = device_->Allocate(uint64_t{100} << 40, "kv", ledger_).status();
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted,
                "device cuda:0 has no room for kv: wanted 102400.0 GiB, ");
  EXPECT_STATUS(device_->AllocateExported(uint64_t{100} << 40, "slab", ledger_),
                absl::StatusCode::kResourceExhausted, "no room for slab");
  EXPECT_STATUS(device_->AllocateExported(SIZE_MAX, "slab", ledger_),
                absl::StatusCode::kResourceExhausted, "no room for slab");
  EXPECT_EQ(ledger_.total(), charged);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_OK(AddOne());
  EXPECT_EQ(Counter(), 1u);
}

TEST_F(CudaDeviceTest, TheLimitHoldsForPlainAndExportedMemoryTogether) {
  ASSERT_OK_AND_ASSIGN(const auto device, CudaDevice::Create({.memory_limit = 5 * kMiB}));
  {
    ASSERT_OK_AND_ASSIGN(const Buffer plain, device->Allocate(kMiB, "plain", ledger_));
    ASSERT_OK_AND_ASSIGN(const ExportedBuffer exported,
                         device->AllocateExported(3 * kMiB, "exported", ledger_));
    EXPECT_EQ(device->Report().free_bytes, 0u);
    EXPECT_STATUS(device->Allocate(1, "more", ledger_), absl::StatusCode::kResourceExhausted,
                  "wanted 1 bytes, 0 bytes free");
  }
  EXPECT_EQ(device->Report().free_bytes, 5 * kMiB);
  EXPECT_EQ(device->Report().total_bytes, 5 * kMiB);
}

TEST_F(CudaDeviceTest, PinnedMemoryIsZeroedAndBothSidesReachIt) {
  ASSERT_OK_AND_ASSIGN(const Buffer host, device_->AllocateHost(3 * kMiB + 5, "staging", ledger_));
  const std::vector<char> zeros(host.size());
  EXPECT_EQ(std::memcmp(host.data(), zeros.data(), zeros.size()), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(host.data()) % 256, 0u);
  EXPECT_EQ(ledger_.total(), host.size() + counter_.size());
  ASSERT_OK(CudaStatus(AddOneCuda(host.as<uint32_t>(), stream().get()), "adding one"));
  ASSERT_OK(stream_->Synchronize());
  EXPECT_EQ(*host.as<uint32_t>(), 1u);
}

TEST_F(CudaDeviceTest, FreedMemoryIsClearedWhenItIsHandedOutAgain) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_OK_AND_ASSIGN(const Buffer buffer, device_->Allocate(64 * kMiB, "kv", ledger_));
    std::vector<char> got(buffer.size(), 1);
    ASSERT_OK(device_->Copy(*stream_, got.data(), buffer.data(), got.size()));
    ASSERT_OK(stream_->Synchronize());
    EXPECT_EQ(std::count(got.begin(), got.end(), 0), static_cast<ptrdiff_t>(got.size()));
    ASSERT_EQ(cudaMemset(buffer.data(), 0xAB, buffer.size()), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
}

TEST_F(CudaDeviceTest, AFaultIsAskedOnceAndForgotten) {
  const auto fault = std::make_shared<SomeFault>();
  const auto other = std::make_shared<SomeFault>();
  for (int i = 0; i < 3; ++i) stream().Watch(fault);
  stream().Watch(other);
  stream().Watch(std::make_shared<SomeFault>());  // gone at once
  fault->status = absl::DataLossError("first");
  other->status = absl::DataLossError("second");
  EXPECT_STATUS(stream_->Synchronize(), absl::StatusCode::kDataLoss, "first");
  EXPECT_EQ(fault->asked, 1);
  EXPECT_EQ(other->asked, 1);
  EXPECT_OK(stream_->Synchronize());
  EXPECT_EQ(fault->asked, 1);
}

TEST_F(CudaDeviceTest, AGraphWatchesTheFaultsOfWhatWasRecordedAtEveryLaunch) {
  const auto fault = std::make_shared<SomeFault>();
  ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream_, [&] {
    stream().Watch(fault);
    return AddOne();
  }));
  EXPECT_OK(stream_->Synchronize());
  EXPECT_EQ(fault->asked, 0);
  fault->status = absl::DataLossError("lost");
  for (int round = 1; round <= 3; ++round) {
    ASSERT_OK(graph->Launch(*stream_));
    EXPECT_STATUS(stream_->Synchronize(), absl::StatusCode::kDataLoss, "lost");
    EXPECT_EQ(fault->asked, round);
  }
  EXPECT_EQ(Counter(), 3u);
}

TEST_F(CudaDeviceTest, AStreamWorksAfterCapturesThatFailed) {
  EXPECT_STATUS(device_->Capture(*stream_,
                                 [&]() -> absl::Status {
                                   EXPECT_OK(AddOne());
                                   return absl::DataLossError("half way");
                                 }),
                absl::StatusCode::kDataLoss, "half way");
  EXPECT_STATUS(
      device_->Capture(
          *stream_,
          [&] { return device_->Capture(*stream_, [] { return absl::OkStatus(); }).status(); }),
      absl::StatusCode::kFailedPrecondition, "captured already");
  // What is forbidden in a capture spoils it, whatever `record` thinks of it.
  const absl::Status spoilt =
      device_
          ->Capture(*stream_,
                    [&] {
                      EXPECT_FALSE(device_->Allocate(kMiB, "kv", ledger_).ok());
                      return absl::OkStatus();
                    })
          .status();
  EXPECT_FALSE(spoilt.ok());
  EXPECT_STATUS(device_->Capture(*stream_, [&] { return stream_->Synchronize(); }),
                absl::StatusCode::kInternal, "CUDA says");
  EXPECT_EQ(ledger_.total(), counter_.size());
  EXPECT_OK(AddOne());
  EXPECT_EQ(Counter(), 1u);
  ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream_, [&] { return AddOne(); }));
  EXPECT_STATUS(device_->Capture(*stream_, [&] { return graph->Launch(*stream_); }),
                absl::StatusCode::kFailedPrecondition, "in a capture");
  EXPECT_OK(graph->Launch(*stream_));
  EXPECT_EQ(Counter(), 2u);
}

TEST_F(CudaDeviceTest, OtherThreadsAllocateCopyAndLaunchDuringACapture) {
  absl::Status other;
  ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream_, [&] {
    std::thread([&] {
      absl::StatusOr<Buffer> memory = device_->Allocate(kMiB, "kv", ledger_);
      absl::StatusOr<ExportedBuffer> exported = device_->AllocateExported(1, "slab", ledger_);
      absl::StatusOr<Buffer> pinned = device_->AllocateHost(kMiB, "staging", ledger_);
      auto stream = device_->CreateStream();
      other.Update(memory.status());
      other.Update(exported.status());
      other.Update(pinned.status());
      other.Update(stream.status());
      if (!other.ok()) return;
      other.Update(device_->Copy(**stream, pinned->data(), memory->data(), kMiB));
      other.Update((*stream)->Synchronize());
      other.Update(device_->Capture(**stream, [] { return absl::OkStatus(); }).status());
    }).join();
    return AddOne();
  }));
  EXPECT_OK(other);
  EXPECT_OK(graph->Launch(*stream_));
  EXPECT_EQ(Counter(), 1u);
}

TEST_F(CudaDeviceTest, ManyThreadsUseItAtOnce) {
  const auto use = [&](int number) -> absl::Status {
    const size_t bytes = kMiB + 1000 * number;
    MUSTER_ASSIGN_OR_RETURN(const auto stream, device_->CreateStream());
    std::vector<char> sent(bytes, static_cast<char>(number)), got(bytes);
    for (int round = 0; round < 20; ++round) {
      MUSTER_ASSIGN_OR_RETURN(const Buffer plain, device_->Allocate(bytes, "kv", ledger_));
      MUSTER_ASSIGN_OR_RETURN(const ExportedBuffer exported,
                              device_->AllocateExported(bytes, "slab", ledger_));
      MUSTER_ASSIGN_OR_RETURN(const PeerMemory opened, device_->OpenExported(exported.handle()));
      MUSTER_ASSIGN_OR_RETURN(const auto graph, device_->Capture(*stream, [&]() -> absl::Status {
        MUSTER_RETURN_IF_ERROR(device_->Copy(*stream, exported.data(), plain.data(), bytes));
        return device_->Copy(*stream, got.data(), opened.data(), bytes);
      }));
      MUSTER_RETURN_IF_ERROR(device_->Copy(*stream, plain.data(), sent.data(), bytes));
      MUSTER_RETURN_IF_ERROR(graph->Launch(*stream));
      MUSTER_RETURN_IF_ERROR(stream->Synchronize());
      if (got != sent) return absl::DataLossError(absl::StrCat("thread ", number));
      std::fill(got.begin(), got.end(), 0);
    }
    return absl::OkStatus();
  };
  std::vector<absl::Status> results(8);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&, i] { results[i] = use(i + 1); });
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) EXPECT_OK(result);
  EXPECT_EQ(ledger_.total(), counter_.size());
}

TEST_F(CudaDeviceTest, SynchronizeWaitsAndAGraphMayGoWhileItRuns) {
  ASSERT_OK_AND_ASSIGN(const Buffer go, device_->AllocateHost(64, "go", ledger_));
  auto graph = device_->Capture(*stream_, [&]() -> absl::Status {
    EXPECT_OK(CudaStatus(WaitForCuda(go.as<uint32_t>(), stream().get()), "waiting"));
    return AddOne();
  });
  ASSERT_OK(graph);
  ASSERT_OK((*graph)->Launch(*stream_));
  graph = absl::CancelledError();
  EXPECT_EQ(cudaStreamQuery(stream().get()), cudaErrorNotReady);
  cudaGetLastError();
  *reinterpret_cast<volatile uint32_t*>(go.data()) = 1;
  EXPECT_OK(stream_->Synchronize());
  EXPECT_EQ(Counter(), 1u);
}

TEST_F(CudaDeviceTest, ReplayWatchAndCopyAllocateNothing) {
  const auto fault = std::make_shared<SomeFault>();
  ASSERT_OK_AND_ASSIGN(const Buffer host, device_->AllocateHost(4096, "staging", ledger_));
  ASSERT_OK_AND_ASSIGN(const Buffer memory, device_->Allocate(4096, "kv", ledger_));
  ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream_, [&] {
    stream().Watch(fault);
    return AddOne();
  }));
  for (int round = 0; round < 3; ++round) {
    const uint64_t before = AllocationsOfThisThread();
    const absl::Status copied = device_->Copy(*stream_, memory.data(), host.data(), 4096);
    stream().Watch(fault);
    const absl::Status launched = graph->Launch(*stream_);
    const absl::Status ran = stream_->Synchronize();
    const uint64_t allocations = AllocationsOfThisThread() - before;
    EXPECT_TRUE(copied.ok() && launched.ok() && ran.ok());
    if (round > 0) {
      EXPECT_EQ(allocations, 0u);
    }
  }
}

TEST_F(CudaDeviceTest, NothingIsLeftOfAHundredExportsStreamsAndGraphs) {
  const auto round = [&] {
    ASSERT_OK_AND_ASSIGN(const ExportedBuffer exported,
                         device_->AllocateExported(40 * kMiB, "slab", ledger_));
    ASSERT_OK_AND_ASSIGN(const PeerMemory opened, device_->OpenExported(exported.handle()));
    EXPECT_EQ(opened.bytes(), exported.size());
    ASSERT_OK_AND_ASSIGN(const auto stream, device_->CreateStream());
    CudaDeviceStream& other = CudaDeviceStream::From(*stream);
    ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream, [&] {
      return CudaStatus(AddOneCuda(static_cast<uint32_t*>(opened.data()), other.get()),
                        "adding one");
    }));
    ASSERT_OK(graph->Launch(*stream));
    ASSERT_OK(stream->Synchronize());
  };
  round();
  const uint64_t before = FreeNow();
  for (int i = 0; i < 100; ++i) round();
  EXPECT_GE(FreeNow() + 4 * kMiB, before);
  EXPECT_EQ(ledger_.total(), counter_.size());
}

TEST_F(CudaDeviceTest, AnExportOpensInThisProcessUntilItIsFreedAndStaysWithItsReaders) {
  auto exported = device_->AllocateExported(1000, "slab", ledger_);
  ASSERT_OK(exported);
  EXPECT_EQ(ledger_.total(), 2 * kMiB + counter_.size());
  const std::string handle = exported->handle();
  ASSERT_OK_AND_ASSIGN(const PeerMemory opened, device_->OpenExported(handle));
  EXPECT_EQ(opened.data(), exported->data());
  exported = absl::CancelledError();
  EXPECT_EQ(ledger_.total(), counter_.size());
  EXPECT_STATUS(device_->OpenExported(handle), absl::StatusCode::kUnavailable, "cannot be opened");
  ASSERT_OK(
      CudaStatus(AddOneCuda(static_cast<uint32_t*>(opened.data()), stream().get()), "adding one"));
  EXPECT_OK(stream_->Synchronize());
}

// Of another GPU where there are two.
TEST_F(CudaDeviceTest, AnExportOpensOnAnotherDeviceOfThisProcess) {
  ASSERT_OK_AND_ASSIGN(const auto other,
                       CudaDevice::Create({.ordinal = DeviceOrdinal(1), .oversubscribe = true}));
  ASSERT_OK_AND_ASSIGN(const ExportedBuffer exported,
                       other->AllocateExported(1000, "slab", ledger_));
  ASSERT_OK_AND_ASSIGN(const PeerMemory opened, device_->OpenExported(exported.handle()));
  ASSERT_OK(device_->MakeCurrent());
  ASSERT_OK(CudaStatus(AddOneCuda(static_cast<uint32_t*>(opened.data()), stream().get()), "add"));
  uint32_t value = 0;
  ASSERT_OK(device_->Copy(*stream_, &value, opened.data(), sizeof(value)));
  ASSERT_OK(stream_->Synchronize());
  EXPECT_EQ(value, 1u);
}

TEST_F(CudaDeviceTest, GraphBytesAreOfTheOrderOfWhatFreeMemoryLoses) {
  for (const int nodes : {1, 100, 1000, 10000}) {
    const uint64_t before = FreeNow();
    std::vector<std::unique_ptr<Graph>> graphs;
    for (int i = 0; i < 8; ++i) {
      ASSERT_OK_AND_ASSIGN(auto graph, device_->Capture(*stream_, [&] {
        absl::Status status;
        for (int node = 0; node < nodes; ++node) status.Update(AddOne());
        return status;
      }));
      ASSERT_OK(graph->Launch(*stream_));
      ASSERT_OK(stream_->Synchronize());
      graphs.push_back(std::move(graph));
    }
    const double taken = static_cast<double>(before - FreeNow()) / 8;
    const double estimated = static_cast<double>(graphs[0]->bytes());
    std::printf("[ figures ] a graph of %d kernels takes %.1f KiB, estimated %.1f KiB\n", nodes,
                taken / 1024, estimated / 1024);
    if (nodes >= 1000) {
      EXPECT_NEAR(estimated / taken, 1, 0.5);
    }
  }
}

TEST_F(CudaDeviceTest, PrintsLatenciesAndBandwidths) {
  for (const int nodes : {1, 100, 400}) {
    ASSERT_OK_AND_ASSIGN(const auto graph, device_->Capture(*stream_, [&] {
      absl::Status status;
      for (int node = 0; node < nodes; ++node) status.Update(AddOne());
      return status;
    }));
    const double launch = MedianMicroseconds(200, [&] {
      EXPECT_OK(graph->Launch(*stream_));
      EXPECT_OK(stream_->Synchronize());
    });
    std::printf("[ figures ] graph of %d kernels, launch to synchronized: %.1f us\n", nodes,
                launch);
  }
  std::printf(
      "[ figures ] kernel and synchronize: %.1f us, synchronize alone: %.2f us\n",
      MedianMicroseconds(200, [&] { EXPECT_TRUE(AddOne().ok() && stream_->Synchronize().ok()); }),
      MedianMicroseconds(200, [&] { EXPECT_OK(stream_->Synchronize()); }));
  constexpr size_t kBytes = 256 * kMiB;
  ASSERT_OK_AND_ASSIGN(const Buffer host, device_->AllocateHost(kBytes, "staging", ledger_));
  ASSERT_OK_AND_ASSIGN(const Buffer a, device_->Allocate(kBytes, "a", ledger_));
  ASSERT_OK_AND_ASSIGN(const Buffer b, device_->Allocate(kBytes, "b", ledger_));
  std::vector<char> pageable(kBytes, 1);
  const struct {
    const char* name;
    void* to;
    const void* from;
  } copies[] = {{"pinned to device", a.data(), host.data()},
                {"device to pinned", host.data(), a.data()},
                {"pageable to device", a.data(), pageable.data()},
                {"device to device", b.data(), a.data()}};
  for (const auto& copy : copies) {
    const double us = MedianMicroseconds(5, [&] {
      EXPECT_OK(device_->Copy(*stream_, copy.to, copy.from, kBytes));
      EXPECT_OK(stream_->Synchronize());
    });
    std::printf("[ figures ] copy %s: %.1f GB/s\n", copy.name, kBytes / us / 1e3);
  }
}

TEST_F(CudaDeviceTest, FindsTheLibrariesThatItNeeds) {
  for (const auto& [name, sonames] :
       {std::pair<const char*, std::vector<std::string>>{"cuBLASLt", {"libcublasLt.so.13"}},
        {"NCCL", {"libnccl.so.2"}}}) {
    const auto start = std::chrono::steady_clock::now();
    const absl::StatusOr<SharedLibrary> library = SharedLibrary::Open(name, sonames);
    EXPECT_OK(library);
    if (!library.ok()) continue;
    const auto ended = std::chrono::steady_clock::now();
    std::printf("[ figures ] %s is %s, loaded in %.0f ms\n", name, library->path().c_str(),
                std::chrono::duration<double, std::milli>(ended - start).count());
  }
}

}  // namespace
}  // namespace muster::testing
