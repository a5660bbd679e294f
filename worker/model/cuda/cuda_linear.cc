#include "worker/model/cuda/cuda_linear.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

cudaDataType_t CudaTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    case DType::kFloat32:
      break;
  }
  return CUDA_R_32F;
}

// Algorithms, best first, to choose from on a shared GPU.
constexpr int kCandidates = 64;

// The blocks of a cluster start together and near each other. While other ranks wait on the GPU
// there is room for pairs; for more there may be none, and they wait for this one. Algorithms from
// before there were clusters say AUTO.
bool FindsRoom(const CublasLtFunctions& f, const cublasLtMatmulAlgo_t& algorithm) {
  uint16_t shape = 0;
  size_t written = 0;
  const cublasStatus_t status = f.algo_config_get_attribute(
      &algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &shape, sizeof(shape), &written);
  return status == CUBLAS_STATUS_SUCCESS &&
         (shape == CUBLASLT_CLUSTER_SHAPE_AUTO || shape == CUBLASLT_CLUSTER_SHAPE_1x1x1 ||
          shape == CUBLASLT_CLUSTER_SHAPE_2x1x1 || shape == CUBLASLT_CLUSTER_SHAPE_1x2x1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaLinear>> CudaLinear::Create(CublasLt& library,
                                                               const Shape& shape) {
  std::unique_ptr<CudaLinear> linear(new CudaLinear(library, shape));
  MUSTER_RETURN_IF_ERROR(linear->Describe());
  return linear;
}

CudaLinear::~CudaLinear() {
  const CublasLtFunctions& f = library_.functions();
  for (cublasLtMatrixLayout_t layout : {weights_, x_, y_}) {
    if (layout != nullptr) f.matrix_layout_destroy(layout);
  }
  if (product_ != nullptr) f.matmul_desc_destroy(product_);
  if (preference_ != nullptr) f.preference_destroy(preference_);
}

absl::Status CudaLinear::Describe() {
  const CublasLtFunctions& f = library_.functions();
  const cudaDataType_t type = CudaTypeOf(shape_.dtype);
  const auto n = static_cast<uint64_t>(shape_.n);
  const auto k = static_cast<uint64_t>(shape_.k);
  absl::Status status;
  const auto check = [&](cublasStatus_t result) {
    status.Update(CublasStatus(result, "describing a product"));
  };
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(f.preference_set_attribute(preference_, attribute, &value, sizeof(value)));
  };
  check(f.matmul_desc_create(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  check(f.matrix_layout_create(&weights_, type, k, n, shape_.k));
  check(f.matrix_layout_create(&x_, type, k, 1, shape_.k));
  check(f.matrix_layout_create(&y_, CudaTypeOf(shape_.y_dtype), n, 1, shape_.n));
  check(f.preference_create(&preference_));
  MUSTER_RETURN_IF_ERROR(status);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(f.matmul_desc_set_attribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                    sizeof(transposed)));
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{CublasLt::kWorkspaceBytes});
  // Parts of a sum meet in float32 and in one order.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto operand :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(operand, uint32_t{kAlignment});
  }
  return status;
}

absl::Status CudaLinear::SetRows(int rows) {
  if (rows == layout_rows_) return absl::OkStatus();
  const uint64_t columns = static_cast<uint64_t>(rows);
  for (cublasLtMatrixLayout_t layout : {x_, y_}) {
    MUSTER_RETURN_IF_ERROR(
        CublasStatus(library_.functions().matrix_layout_set_attribute(
                         layout, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns)),
                     "describing a product"));
  }
  layout_rows_ = rows;
  return absl::OkStatus();
}

absl::StatusOr<cublasLtMatmulAlgo_t> CudaLinear::Choose(int rows) {
  const std::string what = absl::StrCat("choosing a product of ", rows, " rows with weights [",
                                        shape_.n, ", ", shape_.k, "] ", Name(shape_.dtype));
  std::vector<cublasLtMatmulHeuristicResult_t> best(library_.shares_gpu() ? kCandidates : 1);
  int found = 0;
  MUSTER_RETURN_IF_ERROR(CublasStatus(
      library_.functions().algo_get_heuristic(library_.handle(), product_, weights_, x_, y_, y_,
                                              preference_, static_cast<int>(best.size()),
                                              best.data(), &found),
      what));
  best.resize(found);
  for (const cublasLtMatmulHeuristicResult_t& result : best) {
    if (result.state != CUBLAS_STATUS_SUCCESS) continue;
    if (!library_.shares_gpu() || FindsRoom(library_.functions(), result.algo)) return result.algo;
  }
  return absl::UnimplementedError(absl::StrCat(what, ": cuBLASLt has none"));
}

absl::Status CudaLinear::Prepare(int max_rows) {
  for (int rows = 1;; rows = std::min(2 * rows, max_rows)) {
    if (algorithms_.count(rows) == 0) {
      MUSTER_RETURN_IF_ERROR(SetRows(rows));
      const absl::StatusOr<cublasLtMatmulAlgo_t> chosen = Choose(rows);
      if (chosen.ok()) algorithms_[rows] = *chosen;
      if (!chosen.ok() && !absl::IsUnimplemented(chosen.status())) return chosen.status();
    }
    if (rows >= max_rows) break;
  }
  if (algorithms_.empty()) return absl::UnimplementedError("cuBLASLt has no such product");
  max_rows_ = std::max(max_rows_, max_rows);
  return absl::OkStatus();
}

absl::StatusOr<cublasLtMatmulAlgo_t> CudaLinear::AlgorithmFor(int rows) {
  if (rows > max_rows_) {
    return absl::FailedPreconditionError(
        absl::StrCat("a product of ", rows, " rows was not prepared"));
  }
  const auto it = algorithms_.lower_bound(rows);
  if (it == algorithms_.end()) return Choose(rows);
  if (it->first == rows) return it->second;
  cublasLtMatmulHeuristicResult_t fit{};
  const cublasStatus_t checked = library_.functions().algo_check(
      library_.handle(), product_, weights_, x_, y_, y_, &it->second, &fit);
  const bool fits =
      checked == CUBLAS_STATUS_SUCCESS && fit.workspaceSize <= CublasLt::kWorkspaceBytes;
  if (fits) return it->second;
  return Choose(rows);
}

absl::Status CudaLinear::Run(CudaStream stream, int rows, const Arguments& arguments) {
  MUSTER_RETURN_IF_ERROR(SetRows(rows));
  MUSTER_ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algorithm, AlgorithmFor(rows));
  const float one = 1;
  const float zero = 0;
  return CublasStatus(library_.functions().matmul(
                          library_.handle(), product_, &one, arguments.weights, weights_,
                          arguments.x, x_, &zero, arguments.y, y_, arguments.y, y_, &algorithm,
                          library_.workspace(), CublasLt::kWorkspaceBytes, stream),
                      "a product by cuBLASLt");
}

}  // namespace muster
