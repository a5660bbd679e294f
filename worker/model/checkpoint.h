// The weights of a Hugging Face directory, wherever their tensors lie.
#ifndef MUSTER_WORKER_MODEL_CHECKPOINT_H_
#define MUSTER_WORKER_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "worker/model/safetensors.h"

namespace muster {

// A tensor in mapped memory, row-major. Valid while its checkpoint lives.
struct TensorView {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // not aligned
};

// model.safetensors, or the files that model.safetensors.index.json lists. Immutable.
class Checkpoint {
 public:
  // Maps the files and checks their headers; reads no weight. NOT_FOUND: neither file is there, or
  // one that the index lists is not. INVALID_ARGUMENT: names the file and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  bool Has(absl::string_view tensor) const { return tensors_.count(tensor) != 0; }
  // NOT_FOUND: no such tensor. INVALID_ARGUMENT: of another shape (both are named, and the file),
  // or of a type that is none of BF16, F16, F32.
  absl::StatusOr<TensorView> Find(absl::string_view tensor,
                                  const std::vector<int64_t>& shape) const;

  // Of all tensors of the files.
  uint64_t tensor_bytes() const;
  // The type of most bytes of the tensors.
  DType dtype() const;
  // Adds the files' names, sizes and headers.
  void AddTo(Digest& digest) const;

 private:
  Checkpoint() = default;

  absl::Status OpenFile(const std::string& directory, const std::string& name);
  absl::Status OpenIndex(const std::string& directory, absl::string_view json);
  absl::Status AddTensor(const std::string& name, const SafetensorsFile& file);

  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*, std::less<>> tensors_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CHECKPOINT_H_
