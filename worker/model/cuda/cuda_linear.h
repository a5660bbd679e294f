#ifndef MUSTER_WORKER_MODEL_CUDA_CUDA_LINEAR_H_
#define MUSTER_WORKER_MODEL_CUDA_CUDA_LINEAR_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "worker/model/cuda/cublaslt.h"

namespace muster {

// The matrix products y = x W^T of one weight shape by cuBLASLt: float32 sums, and true float32
// products of float32. Algorithms are chosen beforehand; a run allocates nothing and may be
// captured. The same bits from run to run. Threads as CublasLt.
class CudaLinear {
 public:
  struct Shape {
    int64_t n = 0;
    int64_t k = 0;
    DType dtype = DType::kFloat32;    // of x and W
    DType y_dtype = DType::kFloat32;  // `dtype` or float32
  };
  struct Arguments {                // all aligned to kAlignment
    const void* x = nullptr;        // [rows, k]
    const void* weights = nullptr;  // [n, k]
    void* y = nullptr;              // [rows, n]
  };
  static constexpr int kAlignment = 16;  // bytes

  // `library` outlives it. UNIMPLEMENTED: cuBLASLt has no such product.
  static absl::StatusOr<std::unique_ptr<CudaLinear>> Create(CublasLt& library, const Shape& shape);
  ~CudaLinear();

  // Chooses for up to max_rows rows. UNIMPLEMENTED: cuBLASLt has a product for no number of them,
  // on a GPU that ranks share no product that is sure to find room beside ranks that wait.
  absl::Status Prepare(int max_rows);

  // FAILED_PRECONDITION: so many rows were not prepared. UNIMPLEMENTED as Prepare, of `rows`;
  // nothing was enqueued then.
  absl::Status Run(CudaStream stream, int rows, const Arguments& arguments);

 private:
  CudaLinear(CublasLt& library, const Shape& shape) : library_(library), shape_(shape) {}

  absl::Status Describe();
  absl::Status SetRows(int rows);
  absl::StatusOr<cublasLtMatmulAlgo_t> Choose(int rows);
  // One for exactly `rows`, which layouts are set to.
  absl::StatusOr<cublasLtMatmulAlgo_t> AlgorithmFor(int rows);

  CublasLt& library_;
  const Shape shape_;

  // In cuBLASLt's columns first, y^T = W x^T.
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t weights_ = nullptr;
  cublasLtMatrixLayout_t x_ = nullptr;
  cublasLtMatrixLayout_t y_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  int layout_rows_ = 1;                             // of x_ and y_
  int max_rows_ = 0;                                // prepared for
  std::map<int, cublasLtMatmulAlgo_t> algorithms_;  // by rows
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CUDA_CUDA_LINEAR_H_
