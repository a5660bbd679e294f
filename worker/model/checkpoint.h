// The weights of a model, wherever their tensors lie.
#ifndef MUSTER_WORKER_MODEL_CHECKPOINT_H_
#define MUSTER_WORKER_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "kernels/dtype.h"
#include "kernels/dummy_weights.h"

namespace muster {

// A tensor, row-major. Valid while its checkpoint lives.
struct TensorView {
  DType dtype = DType::kFloat32;  // of `data`
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // in a mapped file, not aligned; null: see `dummy`
  DummyTensor dummy;                // where there is no data, what its elements are made of
};

// Immutable.
class Checkpoint {
 public:
  // Of a Hugging Face directory: model.safetensors, or the files that model.safetensors.index.json
  // lists. Maps the files and checks their headers; reads no weight. NOT_FOUND: neither file is
  // there, or one that the index lists is not. INVALID_ARGUMENT: names the file and what is wrong
  // with it.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  virtual ~Checkpoint() = default;

  // NOT_FOUND: no such tensor. INVALID_ARGUMENT: of another shape (both are named, and the file),
  // or of a type that is none of BF16, F16, F32.
  virtual absl::StatusOr<TensorView> Find(absl::string_view tensor,
                                          const std::vector<int64_t>& shape) const = 0;
  // The type of most bytes of the tensors.
  virtual DType dtype() const = 0;
  // Adds what tells it from other checkpoints: of files their names, sizes and headers.
  virtual void AddTo(Digest& digest) const = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CHECKPOINT_H_
