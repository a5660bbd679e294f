#ifndef MUSTER_WORKER_DEVICE_CPU_CPU_DEVICE_H_
#define MUSTER_WORKER_DEVICE_CPU_CPU_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/ids.h"
#include "worker/device/cpu/thread_pool.h"
#include "worker/device/device.h"

namespace muster {

struct CpuDeviceOptions {
  DeviceOrdinal ordinal;
  int threads = 1;            // that compute for one rank, the caller of an op among them
  uint64_t memory_limit = 0;  // bytes this device hands out at most; 0: what the machine has
};

// A slot of this machine's processor and memory. Its streams are CpuStreams that share its pool.
class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const CpuDeviceOptions& options);

  DeviceReport Report() const override;
  absl::StatusOr<Buffer> Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes, absl::string_view tag,
                                      Ledger& ledger) override {
    return Allocate(bytes, tag, ledger);
  }
  absl::StatusOr<ExportedBuffer> AllocateExported(size_t bytes, absl::string_view tag,
                                                  Ledger& ledger) override;
  absl::StatusOr<PeerMemory> OpenExported(absl::string_view handle) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;
  absl::StatusOr<std::unique_ptr<Graph>> Capture(Stream& stream,
                                                 absl::FunctionRef<absl::Status()> record) override;
  absl::Status Copy(Stream& stream, void* to, const void* from, size_t bytes) override;

  ThreadPool& pool() { return pool_; }

  // Counts memory that is committed elsewhere (shared segments) as handed out by this device:
  // RESOURCE_EXHAUSTED as Allocate. The one who claimed releases.
  absl::Status Claim(uint64_t bytes, absl::string_view tag);
  void Release(uint64_t bytes);

 private:
  uint64_t FreeBytes() const;

  const CpuDeviceOptions options_;
  ThreadPool pool_;
  std::atomic<uint64_t> handed_out_{0};
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_CPU_DEVICE_H_
