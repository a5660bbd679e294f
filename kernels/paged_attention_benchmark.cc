// Time of PagedAttention: decoding against reading its KV plainly, prefill in FLOP/s.
//   paged_attention_benchmark [heads] [kv_heads] [head_dim]       default 9 3 64, the demo model
// One thread. KV is bfloat16 in blocks of 16, blocks in random order; medians.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/benchmark_timer.h"
#include "kernels/huge_array.h"
#include "kernels/paged_attention.h"
#include "kernels/streaming_read.h"

namespace muster {
namespace {

constexpr int kPasses = 7;
constexpr int32_t kLayers = 30;
constexpr int32_t kBlockSize = 16;
constexpr int64_t kMaxContext = 8192;
constexpr int64_t kMaxRows = 512;

class Bench {
 public:
  Bench(int32_t heads, int32_t kv_heads, int32_t head_dim)
      : layout_{kLayers, kv_heads, kBlockSize, head_dim, DType::kBFloat16},
        arena_(static_cast<size_t>(kMaxContext / kBlockSize * KvBlockBytes(layout_)) / 2),
        table_(kMaxContext / kBlockSize),
        q_(static_cast<size_t>(kMaxRows * heads * head_dim)),
        out_(q_.size()),
        lse_(static_cast<size_t>(kMaxRows * heads)),
        positions_(kMaxRows),
        sequences_(kMaxRows, 0) {
    std::mt19937 random(1);
    for (uint16_t& bits : arena_) bits = BFloat16(static_cast<float>(random()) * 0x1p-32f).bits;
    for (float& q : q_) q = static_cast<float>(random()) * 0x1p-32f - 0.5f;
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), random);
    descriptor_ = {arena_.data(), kMaxContext / kBlockSize, table_.data(),
                   kMaxContext / kBlockSize};
    params_.q = q_.data();
    params_.q_row_stride = int64_t{heads} * head_dim;
    params_.heads = heads;
    params_.positions = positions_.data();
    params_.row_sequences = sequences_.data();
    params_.kv = &descriptor_;
    params_.layout = layout_;
    params_.ownership = {0, 1};
    params_.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    params_.out = out_.data();
    params_.out_row_stride = params_.q_row_stride;
    params_.lse = lse_.data();
    params_.lse_row_stride = heads;
  }

  // All layers, as a step runs them, of `rows` rows that end at position context - 1.
  void Run(int64_t rows, int64_t context) {
    SetPositions(rows, context);
    for (params_.layer = 0; params_.layer < kLayers; ++params_.layer) {
      PagedAttentionCpu(params_, {0, rows}, {0, params_.heads});
    }
  }

  bool IsRight(int64_t rows, int64_t context) {
    SetPositions(rows, context);
    params_.layer = 0;
    const int64_t row = rows - 1;
    PagedAttentionReference(params_, {row, rows}, {0, params_.heads});
    const std::vector<float> expected = out_;
    PagedAttentionCpu(params_, {0, rows}, {0, params_.heads});
    for (int64_t i = row * params_.out_row_stride; i < rows * params_.out_row_stride; ++i) {
      if (!(std::abs(out_[i] - expected[i]) <= 1e-4f)) return false;
    }
    return true;
  }

  double KvBytes(int64_t context) const {
    return static_cast<double>(context / kBlockSize * KvBlockBytes(layout_));
  }
  double Flops(int64_t rows, int64_t context) const {
    const double keys = static_cast<double>(rows) * (context - (rows - 1) / 2.0);
    return 4.0 * kLayers * params_.heads * layout_.head_dim * keys;
  }
  const std::byte* arena() { return reinterpret_cast<const std::byte*>(arena_.data()); }

 private:
  void SetPositions(int64_t rows, int64_t context) {
    for (int64_t row = 0; row < rows; ++row) {
      positions_[row] = static_cast<int32_t>(context - rows + row);
    }
  }

  KvLayout layout_;
  HugeArray<uint16_t> arena_;
  std::vector<int32_t> table_;
  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<float> lse_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> sequences_;
  KvDescriptor descriptor_;
  PagedAttentionParams params_{};
};

int Main(int32_t heads, int32_t kv_heads, int32_t head_dim) {
  Bench bench(heads, kv_heads, head_dim);
  std::printf("%d heads, %d KV heads of %d, %d layers\n", heads, kv_heads, head_dim, kLayers);
  std::printf("%5s %8s %10s %8s %12s %10s\n", "rows", "context", "ms", "GB/s", "plain read",
              "GFLOP/s");
  for (const int64_t rows : {1, 4, 32, 512}) {
    for (const int64_t context : {512, 2048, 8192}) {
      if (!bench.IsRight(rows, context)) {
        std::printf("%5d %8d wrong results\n", int(rows), int(context));
        return 1;
      }
      const double bytes = bench.KvBytes(context);
      const double read = MedianSeconds(
          kPasses, [&] { StreamingReadCpu(bench.arena(), static_cast<size_t>(bytes)); });
      const double seconds =
          MedianSeconds(rows > 32 ? 1 : kPasses, [&] { bench.Run(rows, context); });
      std::printf("%5d %8d %10.2f %8.1f %12.1f %10.1f\n", int(rows), int(context), seconds * 1e3,
                  bytes * 1e-9 / seconds, bytes * 1e-9 / read,
                  bench.Flops(rows, context) * 1e-9 / seconds);
    }
  }
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  const bool given = argc == 4;
  return muster::Main(given ? std::atoi(argv[1]) : 9, given ? std::atoi(argv[2]) : 3,
                      given ? std::atoi(argv[3]) : 64);
}
