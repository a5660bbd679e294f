#include "worker/collective/ipc/ipc_memory.h"

#include <cuda_runtime_api.h>

#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

// Zeroed as allocated; all but the header must be ones.
absl::Status EmptyBoxes(CudaDevice& device, const ExportedBuffer& region) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, device.CreateStream());
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(region.as<std::byte>() + PeerLayout::kHeaderBytes, 0xFF,
                                 region.size() - PeerLayout::kHeaderBytes,
                                 CudaDeviceStream::From(*stream).get()),
                 "emptying a workspace"));
  return stream->Synchronize();
}

}  // namespace

absl::StatusOr<IpcMemory> IpcMemory::Create(const PeerLayout& layout, absl::string_view tag,
                                            CudaDevice& device, CpuDevice& host, Ledger& ledger) {
  IpcMemory memory;
  MUSTER_ASSIGN_OR_RETURN(memory.segment_, ShmSegment::Create(kShmPage, tag, host, ledger));
  MUSTER_ASSIGN_OR_RETURN(
      memory.region_, device.AllocateExported(static_cast<size_t>(layout.Bytes()), tag, ledger));
  MUSTER_RETURN_IF_ERROR(EmptyBoxes(device, memory.region_));
  memory.region_handle_ = memory.region_.handle();
  const uint64_t nonce = *reinterpret_cast<const uint64_t*>(memory.segment_->data());
  memory.page_ = new (memory.segment_->data()) IpcPage;
  memory.page_->nonce = nonce;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaHostRegister(memory.page_, kShmPage, cudaHostRegisterMapped),
                 "mapping shared memory of the host"));
  memory.registered_ = {memory.page_, [gpu = device.gpu().ordinal.value()](void* page) {
                          cudaSetDevice(gpu);
                          cudaHostUnregister(page);
                        }};
  void* device_page = nullptr;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaHostGetDevicePointer(&device_page, memory.page_, 0),
                                    "mapping shared memory of the host"));
  memory.device_page_ = static_cast<IpcPage*>(device_page);
  return memory;
}

IpcMemory IpcMemory::Lonely() {
  IpcMemory memory;
  memory.lonely_page_ = std::make_unique<IpcPage>();
  memory.page_ = memory.lonely_page_.get();
  return memory;
}

std::string IpcMemory::Handle() const {
  if (!segment_.has_value()) return "";
  return absl::StrCat(segment_->handle().Encode(), ";", region_handle_);
}

void IpcMemory::StopExporting() {
  if (segment_.has_value()) segment_->StopExporting();
}

absl::StatusOr<IpcPeerMemory> IpcPeerMemory::Open(absl::string_view handle, CudaDevice& device) {
  const std::vector<absl::string_view> parts = absl::StrSplit(handle, absl::MaxSplits(';', 1));
  if (parts.size() != 2) return absl::InvalidArgumentError("not a handle of a workspace");
  MUSTER_ASSIGN_OR_RETURN(const ShmHandle page, ShmHandle::Decode(parts[0]));
  if (page.bytes != kShmPage) return absl::InvalidArgumentError("not a handle of a workspace");
  MUSTER_ASSIGN_OR_RETURN(ShmMapping mapping, ShmMapping::Open(page));
  MUSTER_ASSIGN_OR_RETURN(PeerMemory region, device.OpenExported(parts[1]));
  return IpcPeerMemory{std::move(mapping), std::move(region)};
}

}  // namespace muster
