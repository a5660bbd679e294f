// Several ranks on one GPU: by NVIDIA's Multi-Process Service they run side by side, without it
// they take turns. Knows nothing of CUDA itself.
#ifndef MUSTER_WORKER_DEVICE_CUDA_MPS_H_
#define MUSTER_WORKER_DEVICE_CUDA_MPS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace muster {

// Where clients of this environment look for the service: CUDA_MPS_PIPE_DIRECTORY, else
// /tmp/nvidia-mps.
std::string MpsPipeDirectory();

// A control daemon has its pipe in `directory`. It may have died; whether this process really is a
// client, CudaDevice::mps() says.
bool MpsControlIsIn(const std::string& directory);

// How the processes that share a GPU use it.
struct GpuSharing {
  int multiprocessors = 0;  // of the GPU, or those that this client was confined to
  int ranks = 1;            // on the GPU, this one included
  bool mps = false;
};

// Multiprocessors that one grid may fill so that the grids of all ranks are resident at once, and
// those of all ranks but one leave a quarter to it: enough for kernels whose blocks start in pairs.
// At least 1. Ranks that take turns have all of them.
int MultiprocessorBudget(const GpuSharing& sharing);

// One line for the log where ranks take turns: why it is slow, and what to do; else empty.
std::string SharingWarning(const GpuSharing& sharing, absl::string_view pipe_directory);

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_MPS_H_
