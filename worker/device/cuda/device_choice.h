// Which device `--device` means. Knows nothing of CUDA itself.
#ifndef MUSTER_WORKER_DEVICE_CUDA_DEVICE_CHOICE_H_
#define MUSTER_WORKER_DEVICE_CUDA_DEVICE_CHOICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace muster {

// One GPU that this process can use.
struct CudaGpu {
  DeviceOrdinal ordinal;  // CUDA's
  std::string name;       // "NVIDIA H200"
  std::string uuid;       // "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
  uint64_t total_bytes = 0;
  int multiprocessors = 0;
  int compute_capability = 0;  // 90 for 9.0
  bool has_kernels = true;     // this build's run on it
};

// Whether kernels compiled for `architecture` ("80", "90a") alone run on a GPU: those of the same
// major capability and no higher a minor; of "90a" those of 9.0 itself.
bool RunsOn(absl::string_view architecture, const CudaGpu& gpu);

// "this build has kernels for sm_80, sm_90a; cuda:0 is sm_75". FAILED_PRECONDITION.
absl::Status NoKernels(const std::vector<std::string>& architectures,
                       const std::vector<CudaGpu>& gpus);

// "cuda:0 (NVIDIA H200, GPU-...), cuda:1 (...)"; "none".
std::string DescribeGpus(const std::vector<CudaGpu>& gpus);

// NOT_FOUND names what exists.
absl::StatusOr<CudaGpu> FindGpu(DeviceOrdinal ordinal, const std::vector<CudaGpu>& gpus);

// `--device` as it was given.
struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  std::optional<DeviceOrdinal> ordinal;  // of cuda:ORDINAL
  std::string uuid;                      // of cuda:UUID, or its beginning

  friend bool operator==(const DeviceChoice&, const DeviceChoice&) = default;
};

inline constexpr absl::string_view kDeviceForms = "auto, cpu, cuda, cuda:ORDINAL or cuda:UUID";

// INVALID_ARGUMENT names the forms that there are.
absl::StatusOr<DeviceChoice> ParseDeviceChoice(absl::string_view text);

// The GPU, or nothing where `choice` means the CPU. `gpus` is what ListCudaGpus says; `auto` takes
// the first that has kernels, or the CPU where there is none for whatever reason; `cuda` takes the
// first.
// NOT_FOUND names what exists; else the error of `gpus`.
absl::StatusOr<std::optional<CudaGpu>> ChooseDevice(
    const DeviceChoice& choice, const absl::StatusOr<std::vector<CudaGpu>>& gpus);

// What `gpus` is in a build without CUDA: FAILED_PRECONDITION "this build has no CUDA".
absl::Status NoCudaInThisBuild();

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_DEVICE_CHOICE_H_
