#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_MEMORY_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_MEMORY_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/collective/ipc/ipc_page.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/shm_segment.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/exported_buffer.h"

namespace muster {

// One rank's end: its region on the device and its page on the host, or only a page where there are
// no peers. Address and size never change. Move-only.
class IpcMemory {
 public:
  // Of a group of several: allocated, and as empty as PeerLayout wants it. The devices and the
  // ledger outlive it. RESOURCE_EXHAUSTED.
  static absl::StatusOr<IpcMemory> Create(const PeerLayout& layout, absl::string_view tag,
                                          CudaDevice& device, CpuDevice& host, Ledger& ledger);
  // Of a group of one.
  static IpcMemory Lonely();

  IpcPage& page() const { return *page_; }
  // As kernels see the page; null of a group of one.
  IpcPage* device_page() const { return device_page_; }
  std::byte* region() const { return region_.as<std::byte>(); }
  size_t bytes() const { return region_.size(); }

  // What IpcPeerMemory::Open takes; empty of a group of one.
  std::string Handle() const;
  void StopExporting();

 private:
  IpcMemory() = default;

  std::unique_ptr<IpcPage> lonely_page_;
  std::optional<ShmSegment> segment_;
  ExportedBuffer region_;
  std::string region_handle_;
  std::shared_ptr<void> registered_;  // with CUDA, so that kernels reach the page
  IpcPage* page_ = nullptr;
  IpcPage* device_page_ = nullptr;
};

// A peer's end, mapped here.
struct IpcPeerMemory {
  // UNAVAILABLE, INVALID_ARGUMENT.
  static absl::StatusOr<IpcPeerMemory> Open(absl::string_view handle, CudaDevice& device);

  ShmMapping page;
  PeerMemory region;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_MEMORY_H_
