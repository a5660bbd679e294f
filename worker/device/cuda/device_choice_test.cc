#include "worker/device/cuda/device_choice.h"

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Kind = DeviceChoice::Kind;

const std::vector<CudaGpu> kTwo = {
    {DeviceOrdinal(0), "NVIDIA H200", "GPU-0a1b2c3d-0000-1111-2222-333344445555", 1, 132},
    {DeviceOrdinal(1), "NVIDIA H100", "GPU-0a1bffff-0000-1111-2222-333344445555", 1, 132}};

TEST(ParseDeviceChoice, TakesEveryForm) {
  EXPECT_EQ(ParseDeviceChoice("auto").value(), DeviceChoice{Kind::kAuto});
  EXPECT_EQ(ParseDeviceChoice("cpu").value(), DeviceChoice{Kind::kCpu});
  EXPECT_EQ(ParseDeviceChoice("cuda").value(), DeviceChoice{Kind::kCuda});
  EXPECT_EQ(ParseDeviceChoice("cuda:12").value(),
            (DeviceChoice{.kind = Kind::kCuda, .ordinal = DeviceOrdinal(12)}));
  for (const std::string& uuid : {kTwo[0].uuid, std::string("MIG-0a1b2c3d"), kTwo[1].uuid}) {
    EXPECT_EQ(ParseDeviceChoice("cuda:" + uuid).value(),
              (DeviceChoice{.kind = Kind::kCuda, .uuid = uuid}));
  }
}

TEST(ParseDeviceChoice, RefusesTheRestAndNamesTheForms) {
  for (const char* text :
       {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1024", "cuda:1x",
        "cpu:0", "auto ", "cuda:99999999999999999999", "cuda:GPU-", "cuda:GPU-zzzz",
        "cuda:gpu-0a1b2c3d", "cuda:GPU-0a1b2c3d-0000-1111-2222-3333444455556"}) {
    EXPECT_STATUS(ParseDeviceChoice(text), absl::StatusCode::kInvalidArgument,
                  "auto, cpu, cuda, cuda:ORDINAL or cuda:UUID")
        << text;
  }
}

DeviceOrdinal Chosen(const char* text) {
  const auto chosen = ChooseDevice(ParseDeviceChoice(text).value(), kTwo);
  return chosen.ok() && chosen->has_value() ? (*chosen)->ordinal : DeviceOrdinal(-1);
}

TEST(ChooseDevice, FindsOrdinalsUuidsAndTheirBeginnings) {
  EXPECT_EQ(Chosen("auto"), DeviceOrdinal(0));
  EXPECT_EQ(Chosen("cuda"), DeviceOrdinal(0));
  EXPECT_EQ(Chosen("cuda:1"), DeviceOrdinal(1));
  EXPECT_EQ(Chosen("cuda:GPU-0a1bffff-0000-1111-2222-333344445555"), DeviceOrdinal(1));
  EXPECT_EQ(Chosen("cuda:GPU-0A1BF"), DeviceOrdinal(1));
}

TEST(ChooseDevice, NamesWhatExistsWhereAGpuDoesNot) {
  for (const char* text : {"cuda:2", "cuda:GPU-12345678"}) {
    const absl::Status status = ChooseDevice(ParseDeviceChoice(text).value(), kTwo).status();
    EXPECT_STATUS(status, absl::StatusCode::kNotFound, std::string("no device ") + text);
    EXPECT_STATUS(status, absl::StatusCode::kNotFound, "cuda:0 (NVIDIA H200, " + kTwo[0].uuid);
    EXPECT_STATUS(status, absl::StatusCode::kNotFound, "cuda:1 (NVIDIA H100, " + kTwo[1].uuid);
  }
  EXPECT_STATUS(ChooseDevice(ParseDeviceChoice("cuda:GPU-0a1b").value(), kTwo),
                absl::StatusCode::kNotFound, "more than one device");
  EXPECT_STATUS(ChooseDevice({Kind::kCuda}, std::vector<CudaGpu>()), absl::StatusCode::kNotFound,
                "there are: none");
}

TEST(ChooseDevice, AutoIsTheCpuWhereNoGpuCanBeUsed) {
  const absl::StatusOr<std::vector<CudaGpu>> none = NoCudaInThisBuild();
  EXPECT_FALSE(ChooseDevice({Kind::kAuto}, none).value().has_value());
  EXPECT_FALSE(ChooseDevice({Kind::kAuto}, std::vector<CudaGpu>()).value().has_value());
  EXPECT_FALSE(ChooseDevice({Kind::kCpu}, kTwo).value().has_value());
}

TEST(ChooseDevice, AutoPassesOverGpusWithoutKernels) {
  std::vector<CudaGpu> gpus = kTwo;
  gpus[0].has_kernels = false;
  EXPECT_EQ(ChooseDevice({Kind::kAuto}, gpus).value()->ordinal, DeviceOrdinal(1));
  EXPECT_EQ(ChooseDevice({Kind::kCuda}, gpus).value()->ordinal, DeviceOrdinal(0));
  gpus[1].has_kernels = false;
  EXPECT_FALSE(ChooseDevice({Kind::kAuto}, gpus).value().has_value());
}

TEST(RunsOn, IsTheSameMajorCapabilityAndNoHigherMinor) {
  const auto runs = [](const char* architecture, int capability) {
    return RunsOn(architecture, {.compute_capability = capability});
  };
  EXPECT_TRUE(runs("80", 80));
  EXPECT_TRUE(runs("80", 86));
  EXPECT_TRUE(runs("80", 89));
  EXPECT_TRUE(runs("90a", 90));
  EXPECT_TRUE(runs("100", 103));
  EXPECT_FALSE(runs("89", 86));
  EXPECT_FALSE(runs("80", 75));
  EXPECT_FALSE(runs("80", 90));
  EXPECT_FALSE(runs("100a", 103));
  EXPECT_FALSE(runs("100", 110));
  EXPECT_FALSE(runs("100", 120));
  EXPECT_FALSE(runs("", 90));
}

TEST(ChooseDevice, ABuildWithoutCudaSaysSo) {
  const absl::StatusOr<std::vector<CudaGpu>> none = NoCudaInThisBuild();
  for (const char* text : {"cuda", "cuda:0", "cuda:GPU-0a1b2c3d"}) {
    EXPECT_STATUS(ChooseDevice(ParseDeviceChoice(text).value(), none),
                  absl::StatusCode::kFailedPrecondition, "this build has no CUDA");
  }
}

}  // namespace
}  // namespace muster
