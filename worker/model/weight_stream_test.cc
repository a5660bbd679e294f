#include "worker/model/weight_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/model/convert.h"

namespace muster {
namespace {

// Copies as late as it may: when it is waited for.
class LateStream final : public Stream {
 public:
  ~LateStream() override { EXPECT_TRUE(copies_.empty()) << "left on its way"; }

  void Append(std::function<absl::Status()> copy) { copies_.push_back(std::move(copy)); }
  absl::Status Synchronize() override {
    absl::Status status;
    for (const auto& copy : std::exchange(copies_, {})) status.Update(copy());
    return status;
  }

 private:
  std::vector<std::function<absl::Status()>> copies_;
};

// A processor's memory behind late copies, of which one may fail.
class LateDevice final : public Device {
 public:
  struct Options {
    int threads = 0;  // as it reports them
    int failing_copy = -1;
    bool has_host_memory = true;
  };
  explicit LateDevice(const Options& options) : options_(options) {}

  DeviceReport Report() const override {
    DeviceReport report = device_.Report();
    report.threads = options_.threads;
    return report;
  }
  absl::StatusOr<Buffer> Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) override {
    return device_.Allocate(bytes, tag, ledger);
  }
  absl::StatusOr<Buffer> AllocateHost(size_t bytes, absl::string_view tag,
                                      Ledger& ledger) override {
    if (!options_.has_host_memory) return absl::ResourceExhaustedError("nothing to pin");
    return device_.Allocate(bytes, tag, ledger);
  }
  absl::StatusOr<ExportedBuffer> AllocateExported(size_t bytes, absl::string_view tag,
                                                  Ledger& ledger) override {
    return device_.AllocateExported(bytes, tag, ledger);
  }
  absl::StatusOr<PeerMemory> OpenExported(absl::string_view handle) override {
    return device_.OpenExported(handle);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    return std::make_unique<LateStream>();
  }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(Stream& stream,
                                                 absl::FunctionRef<absl::Status()> fn) override {
    return device_.Capture(stream, fn);
  }
  absl::Status Copy(Stream& stream, void* to, const void* from, size_t bytes) override {
    const bool fails = copies_++ == options_.failing_copy;
    static_cast<LateStream&>(stream).Append([=]() -> absl::Status {
      if (fails) return absl::UnavailableError("the device is gone");
      std::memcpy(to, from, bytes);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

  int copies() const { return copies_; }

 private:
  const Options options_;
  CpuDevice device_{CpuDeviceOptions{}};
  std::atomic<int> copies_{0};
};

absl::Status GoOn(uint64_t) { return absl::OkStatus(); }

// A tensor with its contents, one byte off its alignment.
struct Tensor {
  Tensor(DType type, int64_t rows, int64_t columns, std::mt19937& random)
      : dtype(type), shape{rows, columns}, bytes(rows * columns * SizeOf(type) + 1) {
    for (size_t at = 0; at + 4 <= bytes.size(); at += 4) {
      const auto word = static_cast<uint32_t>(random());
      std::memcpy(bytes.data() + at, &word, 4);
    }
  }
  TensorView view() const { return {.dtype = dtype, .shape = shape, .data = bytes.data() + 1}; }

  DType dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

// Element by element.
std::vector<std::byte> Expected(const WeightTransfer& transfer) {
  std::vector<std::byte> all(size_t{1} * transfer.rows.size() * transfer.columns.size() *
                             SizeOf(transfer.dtype));
  std::byte* to = all.data();
  for (int row = transfer.rows.begin; row < transfer.rows.end; ++row) {
    for (int column = transfer.columns.begin; column < transfer.columns.end; ++column) {
      const int64_t element = row * transfer.tensor_columns + column;
      ConvertElements(transfer.view.data + element * SizeOf(transfer.view.dtype),
                      transfer.view.dtype, to, transfer.dtype, 1);
      to += SizeOf(transfer.dtype);
    }
  }
  return all;
}

ShardRange SomeOf(int64_t size, std::mt19937& random) {
  const int begin = static_cast<int>(random() % size);
  return {begin, begin + 1 + static_cast<int>(random() % (size - begin))};
}

struct Shape {
  int64_t rows, columns;
};
// Rows wider than a chunk, chunks of many rows, and what fills none.
constexpr Shape kShapes[] = {{1, 1}, {3, 1500001}, {70001, 17}, {900, 1031}, {1, 64}, {2, 524288}};

class WeightStreamTest : public ::testing::TestWithParam<int> {
 protected:
  // All shapes, into memory with a gap behind each.
  void Prepare() {
    constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
    size_t bytes = 0;
    std::vector<size_t> offsets;
    for (const Shape& shape : kShapes) {
      tensors_.push_back(
          std::make_unique<Tensor>(kTypes[random_() % 3], shape.rows, shape.columns, random_));
      transfers_.push_back({.view = tensors_.back()->view(),
                            .tensor_columns = shape.columns,
                            .rows = SomeOf(shape.rows, random_),
                            .columns = SomeOf(shape.columns, random_),
                            .dtype = kTypes[random_() % 3]});
      offsets.push_back(bytes);
      bytes += Expected(transfers_.back()).size() + 256;
      bytes -= bytes % 256;
    }
    auto memory = cpu_.Allocate(bytes, "weights", ledger_);
    ASSERT_OK(memory);
    memory_ = *std::move(memory);
    for (size_t i = 0; i < transfers_.size(); ++i) {
      transfers_[i].to = memory_.as<std::byte>() + offsets[i];
    }
  }

  const uint32_t seed_ = std::random_device()();
  std::mt19937 random_{seed_};
  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::vector<WeightTransfer> transfers_;
  Ledger ledger_;
  CpuDevice cpu_{CpuDeviceOptions{}};
  Buffer memory_;
};

TEST_P(WeightStreamTest, EveryRectangleArrivesWholeAndNothingBesideIt) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed_);
  LateDevice device({.threads = GetParam()});
  ASSERT_NO_FATAL_FAILURE(Prepare());
  std::vector<std::byte> expected(memory_.size());
  uint64_t bytes = 0, before = 0;
  for (const WeightTransfer& transfer : transfers_) {
    const std::vector<std::byte> one = Expected(transfer);
    std::memcpy(expected.data() + (transfer.to - memory_.as<std::byte>()), one.data(), one.size());
    bytes += one.size();
  }
  EXPECT_OK(StreamWeights(transfers_, device, [&](uint64_t done) {
    EXPECT_GT(done, before);
    EXPECT_LE(done, bytes);
    before = done;
    return absl::OkStatus();
  }));
  EXPECT_EQ(std::memcmp(expected.data(), memory_.data(), memory_.size()), 0);
}

TEST_P(WeightStreamTest, WhatIsGivenUpEndsWithTheReasonAndLeavesNothingOnItsWay) {
  LateDevice device({.threads = GetParam()});
  std::mt19937 random(1);
  const Tensor tensor(DType::kBFloat16, 1536, 8192, random);
  auto memory = cpu_.Allocate(tensor.bytes.size(), "weights", ledger_);
  ASSERT_OK(memory);
  const WeightTransfer transfer = {.view = tensor.view(),
                                   .tensor_columns = 8192,
                                   .rows = {0, 1536},
                                   .columns = {0, 8192},
                                   .dtype = DType::kBFloat16,
                                   .to = memory->as<std::byte>()};
  int calls = 0;
  EXPECT_STATUS(StreamWeights({transfer}, device,
                              [&](uint64_t) {
                                ++calls;
                                return absl::CancelledError("rank 1 was lost");
                              }),
                absl::StatusCode::kCancelled, "rank 1 was lost");
  EXPECT_EQ(calls, 1);
}

TEST_P(WeightStreamTest, TheFirstErrorOfTheDeviceIsReturned) {
  for (const int failing : {0, 3}) {
    LateDevice device({.threads = GetParam(), .failing_copy = failing});
    ASSERT_NO_FATAL_FAILURE(Prepare());
    EXPECT_STATUS(StreamWeights(transfers_, device, GoOn), absl::StatusCode::kUnavailable,
                  "the device is gone");
    transfers_.clear();
  }
}

TEST_P(WeightStreamTest, NothingIsCopiedWithoutRoomToStage) {
  LateDevice device({.threads = GetParam(), .has_host_memory = false});
  ASSERT_NO_FATAL_FAILURE(Prepare());
  EXPECT_STATUS(StreamWeights(transfers_, device, GoOn), absl::StatusCode::kResourceExhausted,
                "nothing to pin");
  EXPECT_EQ(device.copies(), 0);
}

TEST_P(WeightStreamTest, NothingToDoNeedsNothing) {
  LateDevice device({.threads = GetParam(), .has_host_memory = false});
  EXPECT_OK(StreamWeights({}, device, GoOn));
  EXPECT_OK(
      StreamWeights({{.tensor_columns = 7, .rows = {3, 3}, .columns = {0, 7}}}, device, GoOn));
  EXPECT_OK(
      StreamWeights({{.tensor_columns = 7, .rows = {0, 3}, .columns = {2, 2}}}, device, GoOn));
}

// 0: a device that computes on none of the host's processors.
INSTANTIATE_TEST_SUITE_P(Threads, WeightStreamTest, ::testing::Values(0, 1, 2));

}  // namespace
}  // namespace muster
