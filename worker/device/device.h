// What a backend offers: memory, streams and capture. The device is chosen by
// its own options, never by a rank.
#ifndef MUSTER_WORKER_DEVICE_DEVICE_H_
#define MUSTER_WORKER_DEVICE_DEVICE_H_

#include <cstddef>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"
#include "worker/device/buffer.h"
#include "worker/device/exported_buffer.h"
#include "worker/device/graph.h"
#include "worker/device/stream.h"

namespace muster {

// Thread-safe. Outlives all that it made.
class Device {
 public:
  virtual ~Device() = default;

  // Kind, ordinal, name, memory now.
  virtual DeviceReport Report() const = 0;

  // Zeroed memory of the device, aligned to 256 bytes and really committed, so that a success
  // cannot fail later. Only the device reads and writes it: the host copies. RESOURCE_EXHAUSTED
  // names wanted and free bytes.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) = 0;

  // Host memory that the host reads and writes like any other, and copies to and from the device
  // take no detour to (pinned); zeroed, aligned to 256 bytes. RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<Buffer> AllocateHost(size_t bytes, absl::string_view tag,
                                              Ledger& ledger) = 0;

  // As Allocate, in memory that other processes of this host can open until it is freed: an
  // allocation of its own, charged with what exporting takes.
  virtual absl::StatusOr<ExportedBuffer> AllocateExported(size_t bytes, absl::string_view tag,
                                                          Ledger& ledger) = 0;
  // Maps what another process (or this one) exported. UNAVAILABLE when it cannot be opened or is
  // not what `handle` means.
  virtual absl::StatusOr<PeerMemory> OpenExported(absl::string_view handle) = 0;

  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;

  // Records what `record` enqueues on `stream` instead of running it. On an
  // error of `record` nothing is kept. Not reentrant per stream.
  virtual absl::StatusOr<std::unique_ptr<Graph>> Capture(
      Stream& stream, absl::FunctionRef<absl::Status()> record) = 0;

  // Enqueues a copy; either side may be memory of the device or of the host, and stays valid until
  // it has run. Host memory that is not of AllocateHost may make the call wait, and cannot be
  // captured.
  virtual absl::Status Copy(Stream& stream, void* to, const void* from, size_t bytes) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_DEVICE_H_
