#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_MEMORY_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_MEMORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/collective/nccl/nccl_page.h"
#include "worker/device/buffer.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/shm_segment.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// One rank's end: scratch on the device, a page on the host. Of a group of one there is no scratch,
// and nobody maps the page. Addresses never change. Move-only.
class NcclMemory {
 public:
  // The devices and the ledger outlive it. RESOURCE_EXHAUSTED.
  static absl::StatusOr<NcclMemory> Create(uint64_t scratch_bytes, absl::string_view tag,
                                           CudaDevice& device, CpuDevice& host, Ledger& ledger);
  static NcclMemory Lonely();

  NcclPage& page() const { return *page_; }
  // As kernels see those of the page; null of a group of one.
  NcclArrivals* device_arrivals() const { return device_arrivals_; }
  std::byte* scratch() const { return scratch_.as<std::byte>(); }
  size_t bytes() const { return scratch_.size(); }

  // Of the page.
  std::string Handle() const;
  void StopExporting();

 private:
  struct Unregister {
    void operator()(void* page) const;
  };

  NcclMemory() = default;

  std::unique_ptr<NcclPage> lonely_page_;
  std::optional<ShmSegment> segment_;
  Buffer scratch_;
  std::unique_ptr<void, Unregister> registered_;  // with CUDA, so that kernels reach it
  NcclPage* page_ = nullptr;
  NcclArrivals* device_arrivals_ = nullptr;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_MEMORY_H_
