// Which product is faster for how many rows: Muster's kernel of few rows or oneDNN's.
//   linear_benchmark [MiB of weights, default 128]
// One thread, bfloat16 weights of the demo model's shapes, matrix after matrix so that all come
// from memory; both results are compared first. Both ways run in turns; medians of passes.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/benchmark_timer.h"
#include "kernels/huge_array.h"
#include "kernels/skinny_matmul.h"
#include "worker/model/cpu/onednn_linear.h"

namespace muster {
namespace {

constexpr int kPasses = 5;
constexpr int kRows[] = {1, 2, 4, 8, 16, 32, 64, 128};
constexpr int kMaxRows = 128;
constexpr int64_t kSkinnyRows = 32;  // as CpuOps cuts more of them

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
};
constexpr Shape kShapes[] = {
    {"qkv", 960, 576}, {"o_proj", 576, 576}, {"gate_up", 3072, 576}, {"down", 576, 1536}};

class Products {
 public:
  Products(const Shape& shape, size_t bytes)
      : shape_(shape),
        matrices_(std::max<size_t>(1, bytes / 2 / static_cast<size_t>(shape.n * shape.k))),
        weights_(matrices_ * static_cast<size_t>(shape.n * shape.k)),
        x_(static_cast<size_t>(kMaxRows * shape.k)),
        own_(static_cast<size_t>(kMaxRows * shape.n)),
        theirs_(own_.size()) {
    for (size_t i = 0; i < weights_.size(); ++i) weights_.data()[i] = BFloat16(Value(i)).bits;
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = BFloat16(Value(i + 7)).bits;
    auto made = OneDnnLinear::Create({shape.n, shape.k, DType::kBFloat16},
                                     {std::begin(kRows), std::end(kRows)}, 1);
    if (!made.ok()) {
      std::fprintf(stderr, "linear_benchmark: %s\n", made.status().ToString().c_str());
      std::exit(1);
    }
    onednn_ = *std::move(made);
    scratchpad_ = std::make_unique<HugeArray<std::byte>>(onednn_->scratchpad_bytes() + 64);
  }

  void RunOwn(int rows) {
    for (size_t matrix = 0; matrix < matrices_; ++matrix) {
      for (int64_t row = 0; row < rows; row += kSkinnyRows) {
        SkinnyMatmulCpu({.x = x_.data() + row * shape_.k,
                         .x_row_stride = shape_.k,
                         .weights = WeightsOf(matrix),
                         .weights_row_stride = shape_.k,
                         .dtype = DType::kBFloat16,
                         .rows = std::min<int64_t>(kSkinnyRows, rows - row),
                         .k = shape_.k,
                         .y = own_.data() + row * shape_.n,
                         .y_row_stride = shape_.n},
                        {0, shape_.n});
      }
    }
  }

  void RunOneDnn(int rows) {
    for (size_t matrix = 0; matrix < matrices_; ++matrix) {
      const absl::Status status = onednn_->Run(rows, 0,
                                               {.x = x_.data(),
                                                .weights = WeightsOf(matrix),
                                                .y = theirs_.data(),
                                                .scratchpad = scratchpad_->data()});
      if (!status.ok()) std::abort();
    }
  }

  // Of the last matrix: the farthest that two results are apart, in units of the largest.
  float Apart(int rows) const {
    float largest = 0, apart = 0;
    for (int64_t i = 0; i < rows * shape_.n; ++i) {
      largest = std::max(largest, std::abs(own_[i]));
      apart = std::max(apart, std::abs(own_[i] - theirs_[i]));
    }
    return apart / largest;
  }

  // Of one matrix, in microseconds.
  double Microseconds(double seconds) const {
    return 1e6 * seconds / static_cast<double>(matrices_);
  }

 private:
  static float Value(size_t i) { return static_cast<float>(i * 2654435761u % 1000) * 1e-3f - 0.5f; }
  const uint16_t* WeightsOf(size_t matrix) {
    return weights_.data() + matrix * static_cast<size_t>(shape_.n * shape_.k);
  }

  const Shape shape_;
  const size_t matrices_;
  HugeArray<uint16_t> weights_;
  std::vector<uint16_t> x_;
  std::vector<float> own_;
  std::vector<float> theirs_;
  std::unique_ptr<OneDnnLinear> onednn_;
  std::unique_ptr<HugeArray<std::byte>> scratchpad_;
};

void Compare(const Shape& shape, size_t bytes) {
  Products products(shape, bytes);
  for (const int rows : kRows) {
    products.RunOwn(rows);
    products.RunOneDnn(rows);
    const float apart = products.Apart(rows);
    if (!(apart < 1e-4f)) {
      std::fprintf(stderr, "%s, %d rows: the results are %g apart\n", shape.name, rows, apart);
      std::exit(1);
    }
    const double own =
        products.Microseconds(MedianSeconds(kPasses, [&] { products.RunOwn(rows); }));
    const double theirs =
        products.Microseconds(MedianSeconds(kPasses, [&] { products.RunOneDnn(rows); }));
    std::printf("| %s %ld x %ld | %d | %.1f | %.1f | %.2f |\n", shape.name,
                static_cast<long>(shape.n), static_cast<long>(shape.k), rows, own, theirs,
                own / theirs);
  }
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  const size_t bytes = (argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 128) << 20;
  std::printf("| weights | rows | own us | oneDNN us | own / oneDNN |\n|---|---|---|---|---|\n");
  for (const muster::Shape& shape : muster::kShapes) muster::Compare(shape, bytes);
}
