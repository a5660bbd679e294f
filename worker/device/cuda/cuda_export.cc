#include "worker/device/cuda/cuda_export.h"

#include <cuda_runtime_api.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "worker/device/cuda/cuda_driver.h"

namespace muster {
namespace {

constexpr absl::string_view kVersion = "cuda1";

uint64_t RandomNonce() {
  uint64_t nonce = 0;
  while (nonce == 0 && getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce)) {
  }
  return nonce;
}

// What this process exports now: one process cannot open its own handles through CUDA.
class LiveExports {
 public:
  static LiveExports& Get() {
    static auto& exports = *new LiveExports;
    return exports;
  }

  void Add(uint64_t nonce, const std::shared_ptr<CudaExport>& exported) {
    absl::MutexLock lock(&mu_);
    by_nonce_[nonce] = exported;
  }
  void Remove(uint64_t nonce) {
    absl::MutexLock lock(&mu_);
    by_nonce_.erase(nonce);
  }
  std::shared_ptr<CudaExport> Find(uint64_t nonce) {
    absl::MutexLock lock(&mu_);
    const auto found = by_nonce_.find(nonce);
    return found == by_nonce_.end() ? nullptr : found->second.lock();
  }

 private:
  absl::Mutex mu_;
  std::map<uint64_t, std::weak_ptr<CudaExport>> by_nonce_ ABSL_GUARDED_BY(mu_);
};

bool IsHexadecimal(absl::string_view text, size_t bytes) {
  return text.size() == 2 * bytes && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isxdigit(c);
         });
}

std::byte* NonceOf(std::byte* data, uint64_t bytes) {
  return data + ExportedBytes(bytes) - sizeof(uint64_t);
}

// Copies eight bytes and waits.
absl::Status CopyNonce(void* to, const void* from, cudaStream_t setup) {
  MUSTER_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(to, from, sizeof(uint64_t), cudaMemcpyDefault, setup), "copying a nonce"));
  return CudaStatus(cudaStreamSynchronize(setup), "copying a nonce");
}

// Bytes of the allocation that begins at `data`; 0 where none does.
absl::StatusOr<size_t> SizeOfAllocation(const void* data) {
  using GetAddressRange = int(void** base, size_t* bytes, const void* address);
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &entry, CUDART_VERSION,
                                                  cudaEnableDefault, &found),
                 "looking for cuMemGetAddressRange"));
  if (found != cudaDriverEntryPointSuccess) {
    return absl::InternalError("the driver has no cuMemGetAddressRange");
  }
  void* base = nullptr;
  size_t bytes = 0;
  if (reinterpret_cast<GetAddressRange*>(entry)(&base, &bytes, data) != 0) return 0;
  return base == data ? bytes : 0;
}

absl::Status CheckOpened(std::byte* data, const CudaHandle& handle, cudaStream_t setup) {
  MUSTER_ASSIGN_OR_RETURN(const size_t bytes, SizeOfAllocation(data));
  if (bytes < ExportedBytes(handle.bytes)) {
    return absl::UnavailableError("the exported memory has not the announced size");
  }
  uint64_t nonce = 0;
  MUSTER_RETURN_IF_ERROR(CopyNonce(&nonce, NonceOf(data, handle.bytes), setup));
  if (nonce == handle.nonce) return absl::OkStatus();
  return absl::UnavailableError("the exported memory is another one than the announced");
}

}  // namespace

std::string CudaHandle::Encode() const {
  return absl::StrCat(kVersion, ",", pid, ",", nonce, ",", uuid, ",", bytes, ",",
                      absl::BytesToHexString(ipc));
}

absl::StatusOr<CudaHandle> CudaHandle::Decode(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  CudaHandle handle;
  if (parts.size() != 6 || parts[0] != kVersion || !absl::SimpleAtoi(parts[1], &handle.pid) ||
      !absl::SimpleAtoi(parts[2], &handle.nonce) || parts[3].empty() ||
      !absl::SimpleAtoi(parts[4], &handle.bytes) || handle.bytes > UINT64_MAX / 2 ||
      !IsHexadecimal(parts[5], CUDA_IPC_HANDLE_SIZE)) {
    return absl::InvalidArgumentError("not a handle of a GPU's exported memory");
  }
  handle.uuid = std::string(parts[3]);
  handle.ipc = absl::HexStringToBytes(parts[5]);
  return handle;
}

absl::StatusOr<std::shared_ptr<CudaExport>> CudaExport::Create(const CudaGpu& gpu, uint64_t bytes,
                                                               CUstream_st* setup,
                                                               std::function<void()> freed) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, ExportedBytes(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();
    freed();
    return CudaStatus(error, "allocating memory to export");
  }
  std::shared_ptr<CudaExport> result(
      new CudaExport(gpu, static_cast<std::byte*>(data), std::move(freed)));
  MUSTER_RETURN_IF_ERROR(result->Export(bytes, setup));
  LiveExports::Get().Add(result->handle_.nonce, result);
  return result;
}

absl::Status CudaExport::Export(uint64_t bytes, CUstream_st* setup) {
  cudaIpcMemHandle_t ipc;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaIpcGetMemHandle(&ipc, data_), "exporting memory"));
  handle_ = {.pid = getpid(),
             .nonce = RandomNonce(),
             .uuid = gpu_.uuid,
             .bytes = bytes,
             .ipc = std::string(ipc.reserved, sizeof(ipc.reserved))};
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(data_, 0, ExportedBytes(bytes), setup),
                                    "clearing memory to export"));
  return CopyNonce(NonceOf(data_, bytes), &handle_.nonce, setup);
}

CudaExport::~CudaExport() {
  StopExporting();
  cudaSetDevice(gpu_.ordinal.value());
  cudaFree(data_);
  freed_();
}

void CudaExport::StopExporting() { LiveExports::Get().Remove(handle_.nonce); }

std::shared_ptr<CudaExport> CudaExport::Find(uint64_t nonce) {
  return LiveExports::Get().Find(nonce);
}

absl::StatusOr<std::shared_ptr<std::byte>> OpenCudaHandle(const CudaHandle& handle,
                                                          const CudaGpu& gpu, CUstream_st* setup) {
  cudaIpcMemHandle_t ipc;
  std::memcpy(ipc.reserved, handle.ipc.data(), sizeof(ipc.reserved));
  void* data = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&data, ipc, cudaIpcMemLazyEnablePeerAccess);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::UnavailableError(
        absl::StrCat("memory of process ", handle.pid, " on ", handle.uuid, " cannot be opened on ",
                     gpu.uuid, ", its exporter may be gone: CUDA says ", cudaGetErrorName(error),
                     ": ", cudaGetErrorString(error)));
  }
  std::shared_ptr<std::byte> mapping(static_cast<std::byte*>(data),
                                     [ordinal = gpu.ordinal.value()](std::byte* mapped) {
                                       cudaSetDevice(ordinal);
                                       cudaIpcCloseMemHandle(mapped);
                                     });
  MUSTER_RETURN_IF_ERROR(CheckOpened(mapping.get(), handle, setup));
  return mapping;
}

absl::StatusOr<std::optional<CudaGpu>> FindPeer(const CudaGpu& gpu, absl::string_view uuid) {
  if (gpu.uuid == uuid) return std::nullopt;
  MUSTER_ASSIGN_OR_RETURN(const std::vector<CudaGpu> gpus, ListCudaGpus());
  for (const CudaGpu& peer : gpus) {
    if (peer.uuid != uuid) continue;
    int possible = 0;
    MUSTER_RETURN_IF_ERROR(
        CudaStatus(cudaDeviceCanAccessPeer(&possible, gpu.ordinal.value(), peer.ordinal.value()),
                   "asking for peer access"));
    if (possible != 0) return peer;
    return absl::UnavailableError(
        absl::StrCat("there is no peer access between ", DescribeGpus({gpu, peer})));
  }
  return std::nullopt;
}

absl::Status EnablePeerAccess(const CudaGpu& peer) {
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer.ordinal.value(), 0);
  if (error != cudaErrorPeerAccessAlreadyEnabled) return CudaStatus(error, "enabling peer access");
  cudaGetLastError();
  return absl::OkStatus();
}

}  // namespace muster
