#include "worker/device/cuda/mps.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace muster {

std::string MpsPipeDirectory() {
  const char* directory = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  return directory != nullptr && *directory != '\0' ? directory : "/tmp/nvidia-mps";
}

bool MpsControlIsIn(const std::string& directory) {
  return access(absl::StrCat(directory, "/control").c_str(), F_OK) == 0;
}

int MultiprocessorBudget(const GpuSharing& sharing) {
  if (!sharing.mps || sharing.ranks <= 1) return std::max(sharing.multiprocessors, 1);
  return std::max(std::min(sharing.multiprocessors / sharing.ranks,
                           sharing.multiprocessors * 3 / 4 / (sharing.ranks - 1)),
                  1);
}

std::string SharingWarning(const GpuSharing& sharing, absl::string_view pipe_directory) {
  if (sharing.ranks <= 1 || sharing.mps) return "";
  const bool there = MpsControlIsIn(std::string(pipe_directory));
  return absl::StrCat(
      sharing.ranks, " ranks share a GPU without MPS and take turns: each collective waits about ",
      sharing.ranks, " ms instead of 0.01 ms. ",
      there ? "There is a control pipe in " : "There is no control daemon in ", pipe_directory,
      there ? ", but this process is no client of it" : "; start nvidia-cuda-mps-control -d");
}

}  // namespace muster
