#include "worker/device/cpu/cpu_graph.h"

#include "worker/device/cpu/cpu_stream.h"

namespace muster {

absl::Status CpuGraph::Launch(Stream& stream) {
  CpuStream& cpu = CpuStream::From(stream);
  if (cpu.recording()) {
    return absl::FailedPreconditionError("a graph cannot be launched inside a capture");
  }
  return cpu.Run([this] { return Replay(); });
}

absl::Status CpuGraph::Replay() {
  for (auto& op : ops_) {
    if (absl::Status status = op(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace muster
