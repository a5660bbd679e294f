#include "worker/device/buffer.h"

namespace muster {

Buffer::Buffer(void* data, size_t bytes, absl::string_view tag, Ledger& ledger,
               std::function<void(void*, size_t)> free)
    : data_(data), bytes_(bytes), tag_(tag), ledger_(&ledger), free_(std::move(free)) {
  ledger_->Charge(tag_, bytes_);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(tag_, other.tag_);
  std::swap(ledger_, other.ledger_);
  std::swap(free_, other.free_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (free_) free_(data_, bytes_);
  ledger_->Discharge(tag_, bytes_);
}

}  // namespace muster
