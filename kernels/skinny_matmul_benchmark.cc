// Time of SkinnyMatmul over the weights of a model, against reading the same bytes plainly.
//   skinny_matmul_benchmark [MiB of weights, default 256] [threads, default 1]
// Both passes touch all weights once, matrix after matrix, as decoding does; medians of passes.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/benchmark_timer.h"
#include "kernels/huge_array.h"
#include "kernels/skinny_matmul.h"
#include "kernels/streaming_read.h"

namespace muster {
namespace {

constexpr int kPasses = 7;

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
};

// Of the demo model (hidden 576) and of an 8B Llama sharded 16 ways.
constexpr Shape kShapes[] = {
    {"qkv     960 x 576", 960, 576},     {"o_proj  576 x 576", 576, 576},
    {"gate_up 3072 x 576", 3072, 576},   {"down    576 x 1536", 576, 1536},
    {"lm_head 49152 x 576", 49152, 576}, {"o_proj  4096 x 256", 4096, 256},
    {"gate_up 1792 x 4096", 1792, 4096},
};

struct Workload {
  HugeArray<uint16_t> weights;  // bfloat16 bits
  std::vector<uint16_t> x;
  std::vector<float> y;
};

SkinnyMatmulParams ParamsOf(Workload& load, const Shape& shape, int64_t matrix, int64_t rows) {
  SkinnyMatmulParams params{};
  params.x = load.x.data();
  params.x_row_stride = shape.k;
  params.weights = load.weights.data() + matrix * shape.n * shape.k;
  params.weights_row_stride = shape.k;
  params.dtype = DType::kBFloat16;
  params.rows = rows;
  params.k = shape.k;
  params.y = load.y.data();
  params.y_row_stride = shape.n;
  return params;
}

// Elements of y outside the tolerance; a benchmark of wrong results is worth nothing.
int64_t CountWrong(Workload& load, const Shape& shape, int64_t rows) {
  const SkinnyMatmulParams params = ParamsOf(load, shape, 0, rows);
  const int64_t columns = std::min<int64_t>(shape.n, 64);
  SkinnyMatmulReference(params, {0, columns});
  const std::vector<float> expected = load.y;
  SkinnyMatmulCpu(params, {0, columns});
  int64_t wrong = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) {
      const float difference = load.y[row * shape.n + i] - expected[row * shape.n + i];
      wrong += !(std::abs(difference) <= 1e-3f);
    }
  }
  return wrong;
}

// Runs fn(thread) on every thread at once.
template <typename F>
void RunThreads(int threads, const F& fn) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&fn, i] { fn(i); });
  fn(0);
  for (std::thread& other : others) other.join();
}

double MatmulSeconds(Workload& load, const Shape& shape, int64_t rows, int threads) {
  const int64_t matrices = static_cast<int64_t>(load.weights.size()) / (shape.n * shape.k);
  return MedianSeconds(kPasses, [&] {
    RunThreads(threads, [&](int thread) {
      const IndexRange columns{shape.n * thread / threads, shape.n * (thread + 1) / threads};
      for (int64_t matrix = 0; matrix < matrices; ++matrix) {
        SkinnyMatmulCpu(ParamsOf(load, shape, matrix, rows), columns);
      }
    });
  });
}

double ReadSeconds(Workload& load, int threads) {
  return MedianSeconds(kPasses, [&] {
    RunThreads(threads, [&](int thread) {
      const size_t bytes = load.weights.size() * 2 / threads;
      StreamingReadCpu(reinterpret_cast<const std::byte*>(load.weights.data()) + thread * bytes,
                       bytes);
    });
  });
}

void Fill(Workload& load) {
  uint32_t state = 1;
  for (uint16_t& bits : load.weights) {
    state = state * 1664525u + 1013904223u;
    bits = BFloat16(static_cast<float>(state >> 8) * 0x1p-27f - 0.06f).bits;
  }
  load.x.assign(load.weights.begin(), load.weights.begin() + 32 * 4096);
  load.y.resize(32 * 49152);
}

int Main(int64_t mebibytes, int threads) {
  Workload load{HugeArray<uint16_t>(static_cast<size_t>(mebibytes) << 19), {}, {}};
  Fill(load);
  const double gigabytes = static_cast<double>(load.weights.size()) * 2e-9;
  const double limit = gigabytes / ReadSeconds(load, threads);
  std::printf("bfloat16 weights, %lld MiB, %d thread(s); plain read %.1f GB/s\n",
              static_cast<long long>(mebibytes), threads, limit);
  std::printf("%-22s %5s %8s %9s %10s\n", "shape", "rows", "GB/s", "of limit", "GFLOP/s");
  for (const Shape& shape : kShapes) {
    for (const int64_t rows : {1, 2, 4, 8, 16, 32}) {
      if (CountWrong(load, shape, rows) != 0) {
        std::printf("%-22s %5lld wrong results\n", shape.name, static_cast<long long>(rows));
        return 1;
      }
      const double rate = gigabytes / MatmulSeconds(load, shape, rows, threads);
      std::printf("%-22s %5lld %8.1f %8.0f%% %10.1f\n", shape.name, static_cast<long long>(rows),
                  rate, 100 * rate / limit, rate * static_cast<double>(rows));
    }
  }
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  return muster::Main(argc > 1 ? std::atoll(argv[1]) : 256, argc > 2 ? std::atoi(argv[2]) : 1);
}
