#include "worker/collective/nccl/nccl_memory.h"

#include <cuda_runtime_api.h>

#include <new>
#include <utility>

#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {

void NcclMemory::Unregister::operator()(void* page) const { cudaHostUnregister(page); }

absl::StatusOr<NcclMemory> NcclMemory::Create(uint64_t scratch_bytes, absl::string_view tag,
                                              CudaDevice& device, CpuDevice& host, Ledger& ledger) {
  NcclMemory memory;
  MUSTER_ASSIGN_OR_RETURN(memory.scratch_, device.Allocate(scratch_bytes, tag, ledger));
  MUSTER_ASSIGN_OR_RETURN(ShmSegment segment, ShmSegment::Create(kShmPage, tag, host, ledger));
  const uint64_t nonce = *reinterpret_cast<const uint64_t*>(segment.data());
  memory.page_ = new (segment.data()) NcclPage;
  memory.page_->nonce = nonce;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaHostRegister(memory.page_, kShmPage, cudaHostRegisterMapped),
                 "mapping shared memory of the host"));
  memory.registered_.reset(memory.page_);
  void* arrivals = nullptr;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaHostGetDevicePointer(&arrivals, &memory.page_->arrivals, 0),
                                    "mapping shared memory of the host"));
  memory.device_arrivals_ = static_cast<NcclArrivals*>(arrivals);
  memory.segment_ = std::move(segment);
  return memory;
}

NcclMemory NcclMemory::Lonely() {
  NcclMemory memory;
  memory.lonely_page_ = std::make_unique<NcclPage>();
  memory.page_ = memory.lonely_page_.get();
  return memory;
}

std::string NcclMemory::Handle() const {
  return segment_.has_value() ? segment_->handle().Encode() : "";
}

void NcclMemory::StopExporting() {
  if (segment_.has_value()) segment_->StopExporting();
}

}  // namespace muster
