#include "worker/device/cuda/cuda_driver.h"

#include <cuda_runtime_api.h>

#include "tests/support/status_matchers.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {
namespace {

// What the entry points say in turn.
struct Simulated {
  int driver_version = 13000;
  int counted = cudaSuccess;
  int gpus = 2;
  int described = cudaSuccess;
  std::vector<int> capabilities = {90, 90};
  std::vector<std::string> architectures = {"80", "90a"};
};

CudaDriver Simulate(const Simulated& simulated) {
  return {.driver_version = [simulated](int* version) -> int {
            *version = simulated.driver_version;
            return cudaSuccess;
          },
          .runtime_version = [](int* version) -> int {
            *version = 13000;
            return cudaSuccess;
          },
          .count_gpus = [simulated](int* count) -> int {
            *count = simulated.gpus;
            return simulated.counted;
          },
          .describe = [simulated](int ordinal, CudaGpu* gpu) -> int {
            *gpu = {.ordinal = DeviceOrdinal(ordinal),
                    .name = "NVIDIA H200",
                    .uuid = "GPU-0a1b2c3d",
                    .total_bytes = 1,
                    .multiprocessors = 132,
                    .compute_capability = simulated.capabilities[ordinal]};
            return simulated.described;
          },
          .architectures = simulated.architectures};
}

TEST(ListCudaGpus, ListsByOrdinal) {
  ASSERT_OK_AND_ASSIGN(const std::vector<CudaGpu> gpus, ListCudaGpus(Simulate({})));
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[1].ordinal, DeviceOrdinal(1));
  EXPECT_EQ(gpus[1].multiprocessors, 132);
}

TEST(ListCudaGpus, ADriverThatIsTooOldIsNamedWithBothVersions) {
  const auto old = Simulate({.driver_version = 12040, .counted = cudaErrorInsufficientDriver});
  for (const absl::Status& status :
       {ListCudaGpus(old).status(), CudaDevice::Create({}, old).status()}) {
    EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                  "too old: it supports CUDA 12.4, this program needs CUDA 13.0");
  }
}

TEST(ListCudaGpus, AMachineWithoutDriverOrGpuSaysWhich) {
  EXPECT_STATUS(
      ListCudaGpus(Simulate({.driver_version = 0, .counted = cudaErrorInsufficientDriver})),
      absl::StatusCode::kUnavailable, "no NVIDIA driver");
  EXPECT_STATUS(ListCudaGpus(Simulate({.counted = cudaErrorNoDevice, .gpus = 0})),
                absl::StatusCode::kUnavailable, "no GPU");
  EXPECT_STATUS(ListCudaGpus(Simulate({.gpus = 0})), absl::StatusCode::kUnavailable, "no GPU");
}

TEST(ListCudaGpus, OtherErrorsAreCudas) {
  EXPECT_STATUS(ListCudaGpus(Simulate({.counted = cudaErrorSystemNotReady})),
                absl::StatusCode::kInternal, "counting GPUs: CUDA says cudaErrorSystemNotReady");
  EXPECT_STATUS(ListCudaGpus(Simulate({.described = cudaErrorUnknown})),
                absl::StatusCode::kInternal, "describing cuda:0");
}

TEST(ListCudaGpus, WhereKernelsRunOnNoGpuThoseThatThereAreAreNamed) {
  EXPECT_STATUS(ListCudaGpus(Simulate({.gpus = 1, .capabilities = {86}, .architectures = {"90a"}})),
                absl::StatusCode::kFailedPrecondition,
                "this build has kernels for sm_90a; cuda:0 is sm_86");
  EXPECT_STATUS(ListCudaGpus(Simulate({.capabilities = {75, 120}})),
                absl::StatusCode::kFailedPrecondition,
                "this build has kernels for sm_80, sm_90a; cuda:0 is sm_75, cuda:1 is sm_120");
}

TEST(CudaDevice, AGpuWithoutKernelsIsListedButNotStarted) {
  const CudaDriver mixed = Simulate({.capabilities = {75, 86}});
  ASSERT_OK_AND_ASSIGN(const std::vector<CudaGpu> gpus, ListCudaGpus(mixed));
  EXPECT_FALSE(gpus[0].has_kernels);
  EXPECT_TRUE(gpus[1].has_kernels);
  EXPECT_STATUS(CudaDevice::Create({.ordinal = DeviceOrdinal(0)}, mixed),
                absl::StatusCode::kFailedPrecondition,
                "this build has kernels for sm_80, sm_90a; cuda:0 is sm_75");
}

TEST(CudaDriver, KnowsWhatThisProgramWasCompiledFor) {
  const std::vector<std::string> architectures = CudaDriver::Real().architectures;
  ASSERT_FALSE(architectures.empty());
  for (const std::string& architecture : architectures) {
    EXPECT_EQ(architecture.find_first_not_of("0123456789a"), std::string::npos) << architecture;
  }
}

TEST(CudaDevice, AnOrdinalOutOfRangeNamesWhatExists) {
  const absl::Status status =
      CudaDevice::Create({.ordinal = DeviceOrdinal(7)}, Simulate({})).status();
  EXPECT_STATUS(status, absl::StatusCode::kNotFound, "no device cuda:7; there are: cuda:0 (NVIDIA");
  EXPECT_STATUS(status, absl::StatusCode::kNotFound, "cuda:1 (");
}

}  // namespace
}  // namespace muster
