#ifndef MUSTER_WORKER_BACKEND_CHOICE_H_
#define MUSTER_WORKER_BACKEND_CHOICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/engine/engine_backend.h"
#include "worker/options.h"

namespace muster {

// What `--device` means on this machine. "auto" falls back to the CPU, and the log says why.
// Errors: those of ChooseDevice and MakeCudaEngineBackend.
absl::StatusOr<std::unique_ptr<EngineBackend>> MakeBackend(const WorkerOptions& options);

}  // namespace muster

#endif  // MUSTER_WORKER_BACKEND_CHOICE_H_
