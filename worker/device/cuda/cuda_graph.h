#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_GRAPH_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_GRAPH_H_

#include <cstddef>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/cuda/cuda_stream.h"
#include "worker/device/graph.h"

struct CUgraphExec_st;

namespace muster {

// A CUDA graph, instantiated and uploaded. Waits for nobody when it is destroyed: a launch that
// runs goes on to its end.
class CudaGraph final : public Graph {
 public:
  // As Device::Capture. Only this thread's use of CUDA is confined meanwhile: others allocate and
  // launch as they like. FAILED_PRECONDITION while `stream` is captured; else CUDA's errors, after
  // which `stream` works as before.
  static absl::StatusOr<std::unique_ptr<CudaGraph>> Capture(
      CudaDeviceStream& stream, absl::FunctionRef<absl::Status()> record);
  ~CudaGraph() override;

  // FAILED_PRECONDITION while `stream` is captured: graphs do not nest.
  absl::Status Launch(Stream& stream) override;
  // Estimated: CUDA does not say, and free memory also changes with what others do.
  size_t bytes() const override;

  size_t nodes() const { return nodes_; }

 private:
  CudaGraph(int gpu, CUgraphExec_st* graph, size_t nodes, CudaFaults faults);

  const int gpu_;
  CUgraphExec_st* const graph_;
  const size_t nodes_;
  const CudaFaults faults_;  // of the work that was recorded
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_GRAPH_H_
