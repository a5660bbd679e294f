// Memory of a GPU that other processes of this host open through CUDA's inter-process handles.
#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_EXPORT_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_EXPORT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/device/cuda/device_choice.h"

struct CUstream_st;

namespace muster {

// Says where exported memory can be opened, and which.
struct CudaHandle {
  int64_t pid = 0;     // of the exporter, for messages
  uint64_t nonce = 0;  // stands in the last eight bytes of the right allocation
  std::string uuid;    // of its GPU
  uint64_t bytes = 0;  // that were asked for
  std::string ipc;     // the 64 bytes of a cudaIpcMemHandle_t

  // Printable, without spaces and ';'.
  std::string Encode() const;
  // INVALID_ARGUMENT: not a handle, or one of another version of this program.
  static absl::StatusOr<CudaHandle> Decode(absl::string_view text);
};

// What exporting `bytes` takes: CUDA exports whole pieces of 2 MiB, so that nothing else may lie in
// them, and the nonce is behind the bytes.
constexpr uint64_t ExportedBytes(uint64_t bytes) {
  constexpr uint64_t kPiece = uint64_t{2} << 20;
  return (bytes + sizeof(uint64_t) + kPiece - 1) / kPiece * kPiece;
}

// An allocation of its own. Its handle can be opened for as long as it lives.
class CudaExport {
 public:
  // Zeroed but for the nonce, on `gpu`; `setup` is a stream of that GPU. RESOURCE_EXHAUSTED.
  // `freed` is called at the very end, with the memory gone.
  static absl::StatusOr<std::shared_ptr<CudaExport>> Create(const CudaGpu& gpu, uint64_t bytes,
                                                            CUstream_st* setup,
                                                            std::function<void()> freed);
  ~CudaExport();

  std::byte* data() const { return data_; }
  const CudaHandle& handle() const { return handle_; }

  // Nobody can open it any more; those in this process who have keep it.
  void StopExporting();
  // The one in this process, on whatever GPU, with that nonce; null where there is none.
  static std::shared_ptr<CudaExport> Find(uint64_t nonce);

 private:
  CudaExport(const CudaGpu& gpu, std::byte* data, std::function<void()> freed)
      : gpu_(gpu), data_(data), freed_(std::move(freed)) {}
  absl::Status Export(uint64_t bytes, CUstream_st* setup);

  const CudaGpu gpu_;
  std::byte* const data_;
  const std::function<void()> freed_;
  CudaHandle handle_;
};

// Memory of another process, mapped for `gpu` until the last owner goes. UNAVAILABLE says why not:
// the exporter is gone or has freed it, its GPU cannot be reached from `gpu`, or the memory is not
// what `handle` means.
absl::StatusOr<std::shared_ptr<std::byte>> OpenCudaHandle(const CudaHandle& handle,
                                                          const CudaGpu& gpu, CUstream_st* setup);

// The GPU called `uuid`, if it is another than `gpu` and this process sees it. UNAVAILABLE names
// the two that have no peer access.
absl::StatusOr<std::optional<CudaGpu>> FindPeer(const CudaGpu& gpu, absl::string_view uuid);
// Lets the current GPU reach all that this process has on `peer`.
absl::Status EnablePeerAccess(const CudaGpu& peer);

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_EXPORT_H_
