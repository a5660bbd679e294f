#include "worker/device/cuda/cuda_driver.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

std::string UuidString(const cudaUUID_t& uuid) {
  std::string text = "GPU";
  for (int i = 0; i < 16; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    absl::StrAppend(&text, absl::Hex(static_cast<unsigned char>(uuid.bytes[i]), absl::kZeroPad2));
  }
  return text;
}

int Describe(int ordinal, CudaGpu* gpu) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal);
  if (error != cudaSuccess) return error;
  *gpu = {.ordinal = DeviceOrdinal(ordinal),
          .name = properties.name,
          .uuid = UuidString(properties.uuid),
          .total_bytes = properties.totalGlobalMem,
          .multiprocessors = properties.multiProcessorCount,
          .compute_capability = properties.major * 10 + properties.minor};
  return cudaSuccess;
}

// "12.4".
std::string VersionString(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

absl::Status CheckVersions(const CudaDriver& driver, cudaError_t counted) {
  int found = 0, needed = 0;
  driver.driver_version(&found);
  driver.runtime_version(&needed);
  if (found == 0) {
    return absl::UnavailableError(
        "there is no NVIDIA driver on this machine, or it is not visible");
  }
  if (counted != cudaErrorInsufficientDriver) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the NVIDIA driver is too old: it supports CUDA ", VersionString(found),
                   ", this program needs CUDA ", VersionString(needed)));
}

bool HasKernels(const CudaDriver& driver, const CudaGpu& gpu) {
  return std::any_of(driver.architectures.begin(), driver.architectures.end(),
                     [&](const std::string& architecture) { return RunsOn(architecture, gpu); });
}

}  // namespace

CudaDriver CudaDriver::Real() {
  return {.driver_version = [](int* version) -> int { return cudaDriverGetVersion(version); },
          .runtime_version = [](int* version) -> int { return cudaRuntimeGetVersion(version); },
          .count_gpus = [](int* count) -> int { return cudaGetDeviceCount(count); },
          .describe = Describe,
          .architectures = absl::StrSplit(MUSTER_CUDA_ARCHITECTURES, ',')};
}

absl::StatusOr<std::vector<CudaGpu>> ListCudaGpus(const CudaDriver& driver) {
  int count = 0;
  const auto counted = static_cast<cudaError_t>(driver.count_gpus(&count));
  MUSTER_RETURN_IF_ERROR(CheckVersions(driver, counted));
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && count == 0)) {
    return absl::UnavailableError(
        "there is no GPU on this machine, or CUDA_VISIBLE_DEVICES hides it (under MPS it counts "
        "the "
        "GPUs of the service from 0)");
  }
  MUSTER_RETURN_IF_ERROR(CudaStatus(counted, "counting GPUs"));
  std::vector<CudaGpu> gpus(count);
  bool any_has_kernels = false;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    const auto described = static_cast<cudaError_t>(driver.describe(ordinal, &gpus[ordinal]));
    MUSTER_RETURN_IF_ERROR(CudaStatus(described, absl::StrCat("describing cuda:", ordinal)));
    gpus[ordinal].has_kernels = HasKernels(driver, gpus[ordinal]);
    any_has_kernels |= gpus[ordinal].has_kernels;
  }
  if (!any_has_kernels) return NoKernels(driver.architectures, gpus);
  return gpus;
}

}  // namespace muster
