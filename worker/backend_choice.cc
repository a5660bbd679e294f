#include "worker/backend_choice.h"

#include <optional>
#include <vector>

#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/engine/cpu_engine_backend.h"
#include "worker/engine/cuda_engine_backend.h"

namespace muster {
namespace {

// Where `--device` names no GPU, `--device-ordinal` deals them out, as many ranks to each as share
// one.
DeviceChoice Dealt(DeviceChoice choice, const WorkerOptions& options) {
  if (choice.kind == DeviceChoice::Kind::kCuda && !choice.ordinal && choice.uuid.empty()) {
    choice.ordinal = DeviceOrdinal(options.device_ordinal.value() / options.oversubscribe);
  }
  return choice;
}

// A machine without GPUs is nothing to speak of; one whose driver is too old is.
void NoteFallback(const absl::Status& gpus) {
  if (gpus.ok()) return;
  if (absl::IsFailedPrecondition(gpus) && gpus != NoCudaInThisBuild()) {
    Logger().Warning("on the CPU: ", gpus.message());
  } else {
    Logger().Debug("on the CPU: ", gpus.message());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineBackend>> MakeBackend(const WorkerOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(const DeviceChoice choice, ParseDeviceChoice(options.device));
  absl::StatusOr<std::vector<CudaGpu>> gpus = std::vector<CudaGpu>();
  if (choice.kind != DeviceChoice::Kind::kCpu) gpus = ListGpus();
  MUSTER_ASSIGN_OR_RETURN(const std::optional<CudaGpu> gpu,
                          ChooseDevice(Dealt(choice, options), gpus));
  if (!gpu.has_value()) {
    NoteFallback(gpus.status());
    return std::make_unique<CpuEngineBackend>(
        CpuDeviceOptions{.ordinal = options.device_ordinal, .threads = options.threads},
        ShmBackend::Options{});
  }
  return MakeCudaEngineBackend({.gpu = *gpu,
                                .memory_fraction = options.memory_fraction,
                                .ranks_on_gpu = options.oversubscribe});
}

}  // namespace muster
