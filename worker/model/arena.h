#ifndef MUSTER_WORKER_MODEL_ARENA_H_
#define MUSTER_WORKER_MODEL_ARENA_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"
#include "worker/device/device.h"

namespace muster {

// Arrays that share one buffer: added first, then allocated together.
class Arena {
 public:
  // `array` will point to T[count], aligned to 256 bytes and zeroed. It must stay where it is until
  // Allocate.
  template <typename T>
  void Add(T** array, int64_t count) {
    arrays_.push_back({reinterpret_cast<void**>(array), end_});
    end_ += Rounded(count * static_cast<int64_t>(sizeof(T)));
  }

  // The same of elements whose type is known at run time only.
  void Add(void** array, DType dtype, int64_t count) {
    arrays_.push_back({array, end_});
    end_ += Rounded(count * static_cast<int64_t>(SizeOf(dtype)));
  }

  // Once, one of the two: on the device, or in memory of the host that it copies with. The buffer
  // owns the arrays.
  absl::StatusOr<Buffer> Allocate(Device& device, absl::string_view tag, Ledger& ledger) {
    return Place(device.Allocate(static_cast<size_t>(end_), tag, ledger));
  }
  absl::StatusOr<Buffer> AllocateHost(Device& device, absl::string_view tag, Ledger& ledger) {
    return Place(device.AllocateHost(static_cast<size_t>(end_), tag, ledger));
  }

 private:
  static constexpr int64_t kAlignment = 256;

  static int64_t Rounded(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  absl::StatusOr<Buffer> Place(absl::StatusOr<Buffer> buffer) const {
    if (!buffer.ok()) return buffer;
    for (const Array& array : arrays_) *array.pointer = buffer->as<char>() + array.offset;
    return buffer;
  }

  struct Array {
    void** pointer;
    int64_t offset;
  };

  std::vector<Array> arrays_;
  int64_t end_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_ARENA_H_
