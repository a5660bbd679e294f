#ifndef MUSTER_WORKER_DEVICE_BUFFER_H_
#define MUSTER_WORKER_DEVICE_BUFFER_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "worker/device/ledger.h"

namespace muster {

// Owns memory of a device and its charge in a ledger. The address never
// changes. Move-only; empty by default.
class Buffer {
 public:
  Buffer() = default;
  // Takes `data`, charges `ledger` (which outlives the buffer) and calls
  // `free(data, bytes)` at the end.
  Buffer(void* data, size_t bytes, absl::string_view tag, Ledger& ledger,
         std::function<void(void*, size_t)> free);
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const { return data_; }
  size_t size() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::string tag_;
  Ledger* ledger_ = nullptr;
  std::function<void(void*, size_t)> free_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_BUFFER_H_
