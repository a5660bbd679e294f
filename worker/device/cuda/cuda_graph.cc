#include "worker/device/cuda/cuda_graph.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

// Records what `record` enqueues. The capture is over at the end, whatever happened.
absl::StatusOr<cudaGraph_t> Record(CudaDeviceStream& stream,
                                   absl::FunctionRef<absl::Status()> record, CudaFaults& faults) {
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
                 "beginning a capture"));
  stream.Record(&faults);
  absl::Status status = record();
  stream.Record(nullptr);
  cudaGraph_t graph = nullptr;
  status.Update(CudaStatus(cudaStreamEndCapture(stream.get(), &graph), "ending a capture"));
  if (status.ok()) return graph;
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // else the next launch would be blamed
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaGraph>> CudaGraph::Capture(
    CudaDeviceStream& stream, absl::FunctionRef<absl::Status()> record) {
  if (stream.recording()) {
    return absl::FailedPreconditionError("this stream is being captured already");
  }
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(stream.gpu()), "choosing the GPU"));
  CudaFaults faults;
  MUSTER_ASSIGN_OR_RETURN(const cudaGraph_t recorded, Record(stream, record, faults));
  const auto drop = absl::MakeCleanup([recorded] { cudaGraphDestroy(recorded); });
  size_t nodes = 0;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaGraphGetNodes(recorded, nullptr, &nodes), "counting a graph's nodes"));
  cudaGraphExec_t graph = nullptr;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaGraphInstantiate(&graph, recorded, 0), "instantiating a graph"));
  std::unique_ptr<CudaGraph> result(new CudaGraph(stream.gpu(), graph, nodes, std::move(faults)));
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaGraphUpload(graph, stream.get()), "uploading a graph"));
  return result;
}

CudaGraph::CudaGraph(int gpu, CUgraphExec_st* graph, size_t nodes, CudaFaults faults)
    : gpu_(gpu), graph_(graph), nodes_(nodes), faults_(std::move(faults)) {}

CudaGraph::~CudaGraph() {
  cudaSetDevice(gpu_);
  cudaGraphExecDestroy(graph_);
}

absl::Status CudaGraph::Launch(Stream& stream) {
  CudaDeviceStream& cuda = CudaDeviceStream::From(stream);
  if (cuda.recording()) return absl::FailedPreconditionError("a graph is launched in a capture");
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(gpu_), "choosing the GPU"));
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph_, cuda.get()), "launching a graph"));
  cuda.Watch(faults_);
  return absl::OkStatus();
}

size_t CudaGraph::bytes() const {
  constexpr size_t kBytesPerNode = 2304;  // a kernel with few parameters takes 2.1 KiB
  return nodes_ * kBytesPerNode;
}

}  // namespace muster
