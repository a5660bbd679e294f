#include "worker/model/cuda/cublaslt.h"

#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/device/cuda/shared_library.h"

namespace muster {
namespace {

template <typename F>
absl::Status Find(const SharedLibrary& library, const char* symbol, F*& function) {
  MUSTER_ASSIGN_OR_RETURN(function, library.Function<F>(symbol));
  return absl::OkStatus();
}

absl::StatusOr<CublasLtFunctions> Load() {
  const std::string soname = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  MUSTER_ASSIGN_OR_RETURN(const SharedLibrary library, SharedLibrary::Open("cuBLASLt", {soname}));
  CublasLtFunctions f;
  absl::Status found;
  const auto find = [&](const char* symbol, auto& function) {
    found.Update(Find(library, symbol, function));
  };
  find("cublasLtCreate", f.create);
  find("cublasLtDestroy", f.destroy);
  find("cublasLtMatmul", f.matmul);
  find("cublasLtMatmulAlgoCheck", f.algo_check);
  find("cublasLtMatmulAlgoConfigGetAttribute", f.algo_config_get_attribute);
  find("cublasLtMatmulAlgoGetHeuristic", f.algo_get_heuristic);
  find("cublasLtMatmulDescCreate", f.matmul_desc_create);
  find("cublasLtMatmulDescDestroy", f.matmul_desc_destroy);
  find("cublasLtMatmulDescSetAttribute", f.matmul_desc_set_attribute);
  find("cublasLtMatrixLayoutCreate", f.matrix_layout_create);
  find("cublasLtMatrixLayoutDestroy", f.matrix_layout_destroy);
  find("cublasLtMatrixLayoutSetAttribute", f.matrix_layout_set_attribute);
  find("cublasLtMatmulPreferenceCreate", f.preference_create);
  find("cublasLtMatmulPreferenceDestroy", f.preference_destroy);
  find("cublasLtMatmulPreferenceSetAttribute", f.preference_set_attribute);
  MUSTER_RETURN_IF_ERROR(found);
  return f;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Create(CudaDevice& device, Ledger& ledger) {
  MUSTER_ASSIGN_OR_RETURN(const CublasLtFunctions functions, Load());
  MUSTER_ASSIGN_OR_RETURN(Buffer workspace,
                          device.Allocate(kWorkspaceBytes, "activations", ledger));
  cublasLtHandle_t handle = nullptr;
  MUSTER_RETURN_IF_ERROR(CublasStatus(functions.create(&handle), "starting cuBLASLt"));
  return std::unique_ptr<CublasLt>(
      new CublasLt(functions, handle, std::move(workspace), device.ranks_on_gpu() > 1));
}

CublasLt::~CublasLt() { functions_.destroy(handle_); }

absl::Status CublasStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": cuBLASLt says status ", static_cast<int>(status));
  switch (status) {
    case CUBLAS_STATUS_ALLOC_FAILED:
      return absl::ResourceExhaustedError(text);
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return absl::UnimplementedError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace muster
