#ifndef MUSTER_WORKER_DEVICE_EXPORTED_BUFFER_H_
#define MUSTER_WORKER_DEVICE_EXPORTED_BUFFER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace muster {

// Owns memory of a device that other processes of this host can open, and its charge in a ledger.
// The address never changes. Move-only; empty by default and after it was moved from.
class ExportedBuffer {
 public:
  ExportedBuffer() = default;
  // `owner` frees the memory at the end.
  ExportedBuffer(void* data, size_t bytes, std::string handle, std::shared_ptr<void> owner)
      : data_(data), bytes_(bytes), handle_(std::move(handle)), owner_(std::move(owner)) {}
  ExportedBuffer(ExportedBuffer&& other) noexcept { *this = std::move(other); }
  ExportedBuffer& operator=(ExportedBuffer&& other) noexcept {
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    handle_ = std::exchange(other.handle_, std::string());
    owner_ = std::move(other.owner_);
    return *this;
  }

  void* data() const { return data_; }
  size_t size() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // What Device::OpenExported takes, in any process of this host. Not for the outside.
  const std::string& handle() const { return handle_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::string handle_;
  std::shared_ptr<void> owner_;
};

// Exported memory of another process, or of this one, mapped here. It stays readable when the other
// is gone. Move-only; empty by default and after it was moved from.
class PeerMemory {
 public:
  PeerMemory() = default;
  // `owner` ends the mapping.
  PeerMemory(void* data, size_t bytes, std::shared_ptr<void> owner)
      : data_(data), bytes_(bytes), owner_(std::move(owner)) {}
  PeerMemory(PeerMemory&& other) noexcept { *this = std::move(other); }
  PeerMemory& operator=(PeerMemory&& other) noexcept {
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    owner_ = std::move(other.owner_);
    return *this;
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<void> owner_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_EXPORTED_BUFFER_H_
