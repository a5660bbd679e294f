#include "worker/device/cuda/device_choice.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace muster {
namespace {

constexpr int kMaxOrdinal = 1023;

absl::Status Refusal(absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no device: wanted ", kDeviceForms, " (GPU-xxxxxxxx-...)"));
}

bool IsUuid(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "GPU-") && !absl::ConsumePrefix(&text, "MIG-")) return false;
  const bool hexadecimal = std::all_of(text.begin(), text.end(), [](char c) {
    return c == '-' || absl::ascii_isxdigit(static_cast<unsigned char>(c));
  });
  return hexadecimal && text.size() >= 4 && text.size() <= 36;
}

// Digits after the kind: CUDA itself names instances of a divided GPU as it does whole ones.
absl::string_view Digits(absl::string_view uuid) { return uuid.substr(4); }

absl::Status NotFound(absl::string_view wanted, const std::vector<CudaGpu>& gpus) {
  return absl::NotFoundError(
      absl::StrCat("no device cuda:", wanted, "; there are: ", DescribeGpus(gpus)));
}

absl::StatusOr<CudaGpu> FindUuid(const std::string& uuid, const std::vector<CudaGpu>& gpus) {
  std::vector<CudaGpu> found;
  for (const CudaGpu& gpu : gpus) {
    if (absl::StartsWithIgnoreCase(Digits(gpu.uuid), Digits(uuid))) found.push_back(gpu);
  }
  if (found.empty()) return NotFound(uuid, gpus);
  if (found.size() == 1) return found[0];
  return absl::NotFoundError(
      absl::StrCat("cuda:", uuid, " is more than one device: ", DescribeGpus(found)));
}

}  // namespace

std::string DescribeGpus(const std::vector<CudaGpu>& gpus) {
  if (gpus.empty()) return "none";
  return absl::StrJoin(gpus, ", ", [](std::string* out, const CudaGpu& gpu) {
    absl::StrAppend(out, "cuda:", gpu.ordinal.value(), " (", gpu.name, ", ", gpu.uuid, ")");
  });
}

bool RunsOn(absl::string_view architecture, const CudaGpu& gpu) {
  const bool exactly = absl::ConsumeSuffix(&architecture, "a");
  int capability = 0;
  if (!absl::SimpleAtoi(architecture, &capability)) return false;
  if (exactly) return capability == gpu.compute_capability;
  return capability / 10 == gpu.compute_capability / 10 && capability <= gpu.compute_capability;
}

absl::Status NoKernels(const std::vector<std::string>& architectures,
                       const std::vector<CudaGpu>& gpus) {
  return absl::FailedPreconditionError(absl::StrCat(
      "this build has kernels for sm_", absl::StrJoin(architectures, ", sm_"), "; ",
      absl::StrJoin(gpus, ", ", [](std::string* out, const CudaGpu& gpu) {
        absl::StrAppend(out, "cuda:", gpu.ordinal.value(), " is sm_", gpu.compute_capability);
      })));
}

absl::StatusOr<CudaGpu> FindGpu(DeviceOrdinal ordinal, const std::vector<CudaGpu>& gpus) {
  for (const CudaGpu& gpu : gpus) {
    if (gpu.ordinal == ordinal) return gpu;
  }
  return NotFound(absl::StrCat(ordinal.value()), gpus);
}

absl::StatusOr<DeviceChoice> ParseDeviceChoice(absl::string_view text) {
  using Kind = DeviceChoice::Kind;
  if (text == "auto") return DeviceChoice{Kind::kAuto};
  if (text == "cpu") return DeviceChoice{Kind::kCpu};
  if (text == "cuda") return DeviceChoice{Kind::kCuda};
  absl::string_view which = text;
  if (!absl::ConsumePrefix(&which, "cuda:")) return Refusal(text);
  if (IsUuid(which)) return DeviceChoice{.kind = Kind::kCuda, .uuid = std::string(which)};
  int ordinal = 0;
  const bool digits = std::all_of(which.begin(), which.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(which, &ordinal) || ordinal > kMaxOrdinal) return Refusal(text);
  return DeviceChoice{.kind = Kind::kCuda, .ordinal = DeviceOrdinal(ordinal)};
}

absl::StatusOr<std::optional<CudaGpu>> ChooseDevice(
    const DeviceChoice& choice, const absl::StatusOr<std::vector<CudaGpu>>& gpus) {
  if (choice.kind == DeviceChoice::Kind::kCpu) return std::optional<CudaGpu>();
  if (choice.kind == DeviceChoice::Kind::kAuto) {
    if (!gpus.ok()) return std::optional<CudaGpu>();
    const auto usable = std::find_if(gpus->begin(), gpus->end(),
                                     [](const CudaGpu& gpu) { return gpu.has_kernels; });
    return usable == gpus->end() ? std::nullopt : std::optional<CudaGpu>(*usable);
  }
  if (!gpus.ok()) return gpus.status();
  if (choice.ordinal.has_value()) return FindGpu(*choice.ordinal, *gpus);
  if (!choice.uuid.empty()) return FindUuid(choice.uuid, *gpus);
  return FindGpu(DeviceOrdinal(0), *gpus);
}

absl::Status NoCudaInThisBuild() { return absl::FailedPreconditionError("this build has no CUDA"); }

}  // namespace muster
