#ifndef MUSTER_WORKER_MODEL_CPU_ONEDNN_LINEAR_H_
#define MUSTER_WORKER_MODEL_CPU_ONEDNN_LINEAR_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace muster {

// The matrix products of one weight shape with fixed numbers of rows, by oneDNN. The columns of the
// result are cut into parts that may run at the same time, each on one thread: oneDNN starts no
// threads here. Everything is made by Create; a run allocates nothing of ours.
class OneDnnLinear {
 public:
  struct Shape {
    int64_t n = 0;
    int64_t k = 0;
    DType dtype = DType::kFloat32;
  };

  // UNIMPLEMENTED: oneDNN has no such product on this processor. INTERNAL: it failed otherwise. At
  // least 1 part; fewer are made where n is small.
  static absl::StatusOr<std::unique_ptr<OneDnnLinear>> Create(const Shape& shape,
                                                              const std::vector<int>& row_counts,
                                                              int parts);
  ~OneDnnLinear();

  bool Has(int rows) const { return products_.count(rows) != 0; }
  int parts() const { return static_cast<int>(cuts_.size()) - 1; }
  // Of each part of every product; aligned to 64 bytes.
  size_t scratchpad_bytes() const { return scratchpad_bytes_; }

  struct Arguments {
    const void* x = nullptr;        // [rows, k] in ActivationDType
    const void* weights = nullptr;  // [n, k]
    float* y = nullptr;             // [rows, n]
    std::byte* scratchpad = nullptr;
  };
  // Computes the columns of one part, of one of the row counts. Not the same part twice at once.
  absl::Status Run(int rows, int part, const Arguments& arguments);

 private:
  struct Product;  // of one row count and one part

  OneDnnLinear(const Shape& shape, int parts);

  const Shape shape_;
  std::vector<int64_t> cuts_;  // columns [cuts_[p], cuts_[p + 1]) are part p
  std::map<int, std::vector<std::unique_ptr<Product>>> products_;
  size_t scratchpad_bytes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CPU_ONEDNN_LINEAR_H_
