#include "worker/model/cpu/cpu_device_speed.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/skinny_matmul.h"
#include "kernels/streaming_read.h"
#include "worker/model/cpu/onednn_linear.h"

namespace muster {
namespace {

// Several times what a last-level cache holds; within these bounds, since zeroing takes its time.
constexpr size_t kCachesRead = 4;
constexpr size_t kLeastRead = size_t{128} << 20;
constexpr size_t kMostRead = size_t{1} << 30;
// That a thread takes at a time.
constexpr size_t kPiece = size_t{1} << 20;
constexpr int kMatrix = 1024;  // rows and columns
constexpr absl::Duration kTime = absl::Milliseconds(200);
constexpr int kLeastPasses = 3;

size_t BytesToRead() {
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t wanted = kCachesRead * static_cast<size_t>(std::max(cache, 0L));
  return std::clamp(wanted, kLeastRead, kMostRead) / kPiece * kPiece;
}

// The median of as many passes as fit the time, after one that warms up.
absl::StatusOr<absl::Duration> MedianPass(absl::FunctionRef<absl::Status()> pass) {
  MUSTER_RETURN_IF_ERROR(pass());
  std::vector<absl::Duration> passes;
  const auto start = std::chrono::steady_clock::now();
  for (auto last = start; absl::FromChrono(last - start) < kTime || passes.size() < kLeastPasses;) {
    MUSTER_RETURN_IF_ERROR(pass());
    const auto now = std::chrono::steady_clock::now();
    passes.push_back(absl::FromChrono(now - last));
    last = now;
  }
  std::nth_element(passes.begin(), passes.begin() + passes.size() / 2, passes.end());
  return passes[passes.size() / 2];
}

absl::StatusOr<double> MeasureRead(CpuDevice& device) {
  Ledger ledger;
  MUSTER_ASSIGN_OR_RETURN(const Buffer memory,
                          device.Allocate(BytesToRead(), "measurement", ledger));
  std::atomic<size_t> seen{0};
  MUSTER_ASSIGN_OR_RETURN(
      const absl::Duration pass, MedianPass([&] {
        device.pool().Run(static_cast<int>(memory.size() / kPiece), [&](int piece) {
          seen += StreamingReadCpu(memory.as<std::byte>() + piece * kPiece, kPiece);
        });
        return absl::OkStatus();
      }));
  return static_cast<double>(memory.size()) / absl::ToDoubleSeconds(pass);
}

// kMatrix x kMatrix, all ones: numbers that no processor treats as special.
absl::StatusOr<Buffer> Ones(CpuDevice& device, DType dtype, Ledger& ledger) {
  constexpr size_t kCount = size_t{kMatrix} * kMatrix;
  MUSTER_ASSIGN_OR_RETURN(Buffer ones,
                          device.Allocate(kCount * SizeOf(dtype), "measurement", ledger));
  if (dtype == DType::kBFloat16) {
    std::fill_n(ones.as<BFloat16>(), kCount, BFloat16(1));
  } else {
    std::fill_n(ones.as<float>(), kCount, 1.0f);
  }
  return ones;
}

absl::StatusOr<double> MeasureProduct(CpuDevice& device, DType dtype) {
  auto linear = OneDnnLinear::Create({.n = kMatrix, .k = kMatrix, .dtype = dtype}, {kMatrix},
                                     device.pool().threads());
  if (absl::IsUnimplemented(linear.status()) && dtype != DType::kFloat32) {
    return MeasureProduct(device, DType::kFloat32);
  }
  MUSTER_RETURN_IF_ERROR(linear.status());
  OneDnnLinear& product = **linear;
  Ledger ledger;
  MUSTER_ASSIGN_OR_RETURN(const Buffer x, Ones(device, ActivationDType(dtype), ledger));
  MUSTER_ASSIGN_OR_RETURN(const Buffer weights, Ones(device, dtype, ledger));
  MUSTER_ASSIGN_OR_RETURN(const Buffer y, Ones(device, DType::kFloat32, ledger));
  const size_t stride = (product.scratchpad_bytes() / 4096 + 1) * 4096;
  MUSTER_ASSIGN_OR_RETURN(const Buffer scratchpad,
                          device.Allocate(stride * product.parts(), "measurement", ledger));
  std::vector<absl::Status> statuses(product.parts());
  const auto multiply = [&]() -> absl::Status {
    device.pool().Run(product.parts(), [&](int part) {
      statuses[part] = product.Run(
          kMatrix, part,
          {x.data(), weights.data(), y.as<float>(), scratchpad.as<std::byte>() + part * stride});
    });
    for (const absl::Status& status : statuses) MUSTER_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  };
  MUSTER_ASSIGN_OR_RETURN(const absl::Duration pass, MedianPass(multiply));
  return 2.0 * kMatrix * kMatrix * kMatrix / absl::ToDoubleSeconds(pass);
}

}  // namespace

absl::StatusOr<DeviceSpeed> MeasureCpu(CpuDevice& device, DType dtype) {
  DeviceSpeed speed;
  MUSTER_ASSIGN_OR_RETURN(speed.read_bytes_per_second, MeasureRead(device));
  MUSTER_ASSIGN_OR_RETURN(speed.matrix_flops_per_second, MeasureProduct(device, dtype));
  return speed;
}

}  // namespace muster
