// The safetensors format (https://huggingface.co/docs/safetensors): eight bytes of header length, a
// JSON header, the tensors' bytes.
#ifndef MUSTER_WORKER_MODEL_SAFETENSORS_H_
#define MUSTER_WORKER_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace muster {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// Where a tensor lies, and what it is.
struct TensorEntry {
  std::string dtype_name;      // "BF16", ...
  std::optional<DType> dtype;  // none where the format knows it and Muster does not
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // offsets into the tensors' bytes
  uint64_t end = 0;
};

using TensorTable = std::map<std::string, TensorEntry, std::less<>>;

// "[49152, 576]".
std::string ShapeString(const std::vector<int64_t>& shape);

// Checks everything: offsets within `data_bytes`, spans that equal shape x dtype, no hole, no
// overlap, nothing after the last tensor, no name twice. INVALID_ARGUMENT (kModelUnusable) begins
// with `place`.
absl::StatusOr<TensorTable> ParseSafetensorsHeader(absl::string_view json, uint64_t data_bytes,
                                                   absl::string_view place);

// A file mapped into memory, read-only. Immutable. The file must keep its length while it is open.
class SafetensorsFile {
 public:
  // NOT_FOUND: no such file. Otherwise as ParseSafetensorsHeader. `name` stands in messages.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path,
                                                               absl::string_view name);
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  ~SafetensorsFile();

  const std::string& name() const { return name_; }
  const TensorTable& tensors() const { return tensors_; }
  // The first byte of a tensor of this file; not aligned.
  const std::byte* data(const TensorEntry& entry) const {
    return data_ + data_begin_ + entry.begin;
  }
  uint64_t file_bytes() const { return size_; }
  absl::string_view header() const;

 private:
  SafetensorsFile(const std::byte* data, uint64_t size, absl::string_view name)
      : data_(data), size_(size), name_(name) {}

  absl::Status ReadHeader();

  const std::byte* data_;
  uint64_t size_;
  uint64_t data_begin_ = 0;
  std::string name_;
  TensorTable tensors_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_SAFETENSORS_H_
