#include "worker/device/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_kernels.h"
#include "kernels/cuda_status.h"
#include "worker/device/byte_size.h"
#include "worker/device/cuda/cuda_export.h"
#include "worker/device/cuda/cuda_graph.h"
#include "worker/device/cuda/mps.h"

namespace muster {
namespace {

// What an ExportedBuffer owns: its end is the end of the charge and of the exporting; the memory
// itself also ends with those in this process who opened it.
class OwnedExport {
 public:
  OwnedExport(std::shared_ptr<CudaExport> memory, LedgerCharge charge)
      : memory_(std::move(memory)), charge_(std::move(charge)) {}
  ~OwnedExport() { memory_->StopExporting(); }

 private:
  const std::shared_ptr<CudaExport> memory_;
  const LedgerCharge charge_;
};

// The ordinal of the GPU that `options` mean.
DeviceOrdinal WithinGpus(const CudaDeviceOptions& options, size_t gpus) {
  if (!options.oversubscribe) return options.ordinal;
  return DeviceOrdinal(options.ordinal.value() % static_cast<int>(gpus));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(const CudaDeviceOptions& options,
                                                               const CudaDriver& driver) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<CudaGpu> gpus, ListCudaGpus(driver));
  MUSTER_ASSIGN_OR_RETURN(CudaGpu gpu, FindGpu(WithinGpus(options, gpus.size()), gpus));
  if (!gpu.has_kernels) return NoKernels(driver.architectures, {gpu});
  std::unique_ptr<CudaDevice> device(new CudaDevice(options, std::move(gpu)));
  MUSTER_RETURN_IF_ERROR(device->Start());
  return device;
}

absl::Status CudaDevice::Start() {
  const int ordinal = gpu_.ordinal.value();
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaInitDevice(ordinal, cudaDeviceScheduleSpin, cudaInitDeviceFlagsAreValid),
                 absl::StrCat("starting cuda:", ordinal)));
  MUSTER_ASSIGN_OR_RETURN(setup_, CudaDeviceStream::Create(ordinal));
  // Loaded later they would take memory then, and could wait for a kernel that waits for a peer.
  MUSTER_RETURN_IF_ERROR(CudaStatus(LoadCudaKernels(), "loading kernels"));
  int mps = 0;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&mps, cudaDevAttrMpsEnabled, ordinal), "asking for MPS"));
  mps_ = mps != 0;
  return absl::OkStatus();
}

CudaDevice::~CudaDevice() = default;

absl::Status CudaDevice::MakeCurrent() const {
  return CudaStatus(cudaSetDevice(gpu_.ordinal.value()),
                    absl::StrCat("choosing cuda:", gpu_.ordinal.value()));
}

int CudaDevice::multiprocessor_budget() const {
  return MultiprocessorBudget(
      {.multiprocessors = gpu_.multiprocessors, .ranks = options_.ranks_on_gpu, .mps = mps_});
}

uint64_t CudaDevice::FreeBytes() const {
  size_t free = 0, total = 0;
  if (!MakeCurrent().ok() || cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  // Without limits, the ranks that share a GPU see the same bytes, and may all take them at once.
  if (options_.memory_limit == 0) return free / static_cast<size_t>(options_.ranks_on_gpu);
  const uint64_t used = std::min(handed_out_.load(), options_.memory_limit);
  return std::min<uint64_t>(free, options_.memory_limit - used);
}

absl::Status CudaDevice::Check() const {
  size_t free = 0, total = 0;
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  return CudaStatus(cudaMemGetInfo(&free, &total),
                    absl::StrCat("cuda:", gpu_.ordinal.value(), " cannot be used any more"));
}

DeviceReport CudaDevice::Report() const {
  const uint64_t limit = options_.memory_limit;
  return {.kind = "cuda",
          .ordinal = options_.ordinal,
          .name = gpu_.name,
          .total_bytes = limit == 0 ? gpu_.total_bytes : std::min(limit, gpu_.total_bytes),
          .free_bytes = FreeBytes()};
}

absl::Status CudaDevice::NoRoom(uint64_t bytes, absl::string_view tag) const {
  return absl::ResourceExhaustedError(
      absl::StrCat("device cuda:", options_.ordinal.value(), " has no room for ", tag, ": wanted ",
                   ByteSizeString(bytes), ", ", ByteSizeString(FreeBytes()), " free"));
}

absl::Status CudaDevice::Claim(uint64_t bytes, absl::string_view tag) {
  const uint64_t before = handed_out_.fetch_add(bytes);
  const uint64_t limit = options_.memory_limit;
  if (limit == 0 || (before <= limit && bytes <= limit - before)) return absl::OkStatus();
  Release(bytes);
  return NoRoom(bytes, tag);
}

absl::StatusOr<Buffer> CudaDevice::Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) {
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  MUSTER_RETURN_IF_ERROR(Claim(bytes, tag));
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();  // else the next launch would be blamed
    Release(bytes);
    if (error == cudaErrorMemoryAllocation) return NoRoom(bytes, tag);
    return CudaStatus(error, absl::StrCat("allocating memory for ", tag));
  }
  Buffer buffer(data, bytes, tag, ledger, [this](void* memory, size_t size) {
    MakeCurrent().IgnoreError();
    cudaFree(memory);
    Release(size);
  });
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(data, 0, bytes, setup_->get()),
                                    absl::StrCat("clearing memory for ", tag)));
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaStreamSynchronize(setup_->get()), absl::StrCat("clearing memory for ", tag)));
  return buffer;
}

absl::StatusOr<Buffer> CudaDevice::AllocateHost(size_t bytes, absl::string_view tag,
                                                Ledger& ledger) {
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  void* data = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat("the host has no room for ", tag, ": wanted ",
                                                     ByteSizeString(bytes), " of pinned memory"));
  }
  MUSTER_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("pinned memory for ", tag)));
  if (bytes != 0) std::memset(data, 0, bytes);
  return Buffer(data, bytes, tag, ledger, [this](void* memory, size_t) {
    MakeCurrent().IgnoreError();
    cudaFreeHost(memory);
  });
}

absl::StatusOr<ExportedBuffer> CudaDevice::AllocateExported(size_t bytes, absl::string_view tag,
                                                            Ledger& ledger) {
  if (bytes > UINT64_MAX / 2) return NoRoom(bytes, tag);
  const uint64_t whole = ExportedBytes(bytes);
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  MUSTER_RETURN_IF_ERROR(Claim(whole, tag));
  absl::StatusOr<std::shared_ptr<CudaExport>> memory =
      CudaExport::Create(gpu_, bytes, setup_->get(), [this, whole] { Release(whole); });
  if (absl::IsResourceExhausted(memory.status())) return NoRoom(whole, tag);
  if (!memory.ok()) return memory.status();
  std::byte* const data = (*memory)->data();
  std::string handle = (*memory)->handle().Encode();
  auto owner = std::make_shared<OwnedExport>(*std::move(memory), LedgerCharge(ledger, tag, whole));
  return ExportedBuffer(data, bytes, std::move(handle), std::move(owner));
}

absl::StatusOr<PeerMemory> CudaDevice::OpenExported(absl::string_view handle) {
  const absl::StatusOr<CudaHandle> decoded = CudaHandle::Decode(handle);
  if (!decoded.ok()) return absl::UnavailableError(decoded.status().message());
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  MUSTER_ASSIGN_OR_RETURN(const std::optional<CudaGpu> peer, FindPeer(gpu_, decoded->uuid));
  if (std::shared_ptr<CudaExport> own = CudaExport::Find(decoded->nonce)) {
    if (peer.has_value()) MUSTER_RETURN_IF_ERROR(EnablePeerAccess(*peer));
    std::byte* const data = own->data();
    return PeerMemory(data, decoded->bytes, std::move(own));
  }
  MUSTER_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> mapping,
                          OpenCudaHandle(*decoded, gpu_, setup_->get()));
  std::byte* const data = mapping.get();
  return PeerMemory(data, decoded->bytes, std::move(mapping));
}

absl::StatusOr<std::unique_ptr<Stream>> CudaDevice::CreateStream() {
  return CudaDeviceStream::Create(gpu_.ordinal.value());
}

absl::StatusOr<std::unique_ptr<Graph>> CudaDevice::Capture(
    Stream& stream, absl::FunctionRef<absl::Status()> record) {
  return CudaGraph::Capture(CudaDeviceStream::From(stream), record);
}

absl::Status CudaDevice::Copy(Stream& stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  MUSTER_RETURN_IF_ERROR(MakeCurrent());
  return CudaStatus(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, CudaDeviceStream::From(stream).get()),
      "copying");
}

}  // namespace muster
