// cuBLASLt, found at run time.
#ifndef MUSTER_WORKER_MODEL_CUDA_CUBLASLT_H_
#define MUSTER_WORKER_MODEL_CUDA_CUBLASLT_H_

#include <cublasLt.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// Its functions that are called here, by the names in cublasLt.h.
struct CublasLtFunctions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoCheck) algo_check;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_config_get_attribute;
  decltype(&cublasLtMatmulAlgoGetHeuristic) algo_get_heuristic;
  decltype(&cublasLtMatmulDescCreate) matmul_desc_create;
  decltype(&cublasLtMatmulDescDestroy) matmul_desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) matmul_desc_set_attribute;
  decltype(&cublasLtMatrixLayoutCreate) matrix_layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) matrix_layout_destroy;
  decltype(&cublasLtMatrixLayoutSetAttribute) matrix_layout_set_attribute;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set_attribute;
};

// The library with a handle on one GPU and the memory that its products work in, which follow each
// other on one stream. Used by one thread at a time, on which the GPU is current.
class CublasLt {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // The workspace is charged to `ledger` as "activations"; `device` and `ledger` outlive this.
  // UNAVAILABLE says what was looked for and where; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Create(CudaDevice& device, Ledger& ledger);
  ~CublasLt();

  const CublasLtFunctions& functions() const { return functions_; }
  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_.data(); }
  // Other ranks run on the GPU, too.
  bool shares_gpu() const { return shares_gpu_; }

 private:
  CublasLt(const CublasLtFunctions& functions, cublasLtHandle_t handle, Buffer workspace,
           bool shares_gpu)
      : functions_(functions),
        handle_(handle),
        workspace_(std::move(workspace)),
        shares_gpu_(shares_gpu) {}

  const CublasLtFunctions functions_;
  const cublasLtHandle_t handle_;
  const Buffer workspace_;
  const bool shares_gpu_;
};

// OK, RESOURCE_EXHAUSTED (no memory), UNIMPLEMENTED (no such product), else INTERNAL. `what` was
// being done.
absl::Status CublasStatus(cublasStatus_t status, absl::string_view what);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CUDA_CUBLASLT_H_
