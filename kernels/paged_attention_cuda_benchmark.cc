// Time of PagedAttentionCuda: decoding against reading its KV at the speed of a device copy,
// prefill in TFLOP/s. bfloat16, 32 / 8 heads of 128, blocks of 16 in random order; medians of
// launches of a CUDA graph that holds a call for each of several layers.
//   paged_attention_cuda_benchmark [decode|prefill]

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/paged_attention.h"

namespace muster {
namespace {

using ::muster::testing::CudaCheck;
using ::muster::testing::DeviceBytes;
using ::muster::testing::ToDevice;

constexpr int32_t kHeads = 32;
constexpr int32_t kKvHeads = 8;
constexpr int32_t kHeadDim = 128;
constexpr int32_t kBlockSize = 16;
constexpr int64_t kArenaBytes = int64_t{12} << 30;
constexpr int kCalls = 20;
constexpr int kPasses = 11;

int Multiprocessors() {
  int count = 0;
  CudaCheck(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0), "attribute");
  return count;
}

// The median time of a graph of what `fn` enqueues, in microseconds.
template <typename Fn>
double MedianGraphMicroseconds(const Fn& fn) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  CudaCheck(cudaStreamCreate(&stream), "stream");
  CudaCheck(cudaEventCreate(&begin), "event");
  CudaCheck(cudaEventCreate(&end), "event");
  CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  fn(stream);
  CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
  CudaCheck(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  std::vector<float> times(kPasses + 1);
  for (float& milliseconds : times) {
    CudaCheck(cudaEventRecord(begin, stream), "record");
    CudaCheck(cudaGraphLaunch(exec, stream), "launch");
    CudaCheck(cudaEventRecord(end, stream), "record");
    CudaCheck(cudaStreamSynchronize(stream), "run");
    CudaCheck(cudaEventElapsedTime(&milliseconds, begin, end), "time");
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::nth_element(times.begin() + 1, times.begin() + 1 + kPasses / 2, times.end());
  return times[1 + kPasses / 2] * 1e3;
}

double CopyBytesPerMicrosecond() {
  constexpr size_t kBytes = size_t{1} << 30;
  const DeviceBytes from(kBytes);
  const DeviceBytes to(kBytes);
  const double time = MedianGraphMicroseconds([&](cudaStream_t stream) {
    CudaCheck(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream),
              "copy");
  });
  return 2.0 * kBytes / time;
}

// Random bfloat16 of small magnitude.
void FillArena(const DeviceBytes& arena) {
  std::vector<uint16_t> some(size_t{8} << 20);
  std::mt19937 random(1);
  for (uint16_t& bits : some) {
    bits = BFloat16(static_cast<float>(random()) * 0x1p-31f - 1.0f).bits;
  }
  const size_t bytes = some.size() * sizeof(uint16_t);
  for (size_t at = 0; at < arena.size(); at += bytes) {
    CudaCheck(cudaMemcpy(arena.as<char>() + at, some.data(), std::min(bytes, arena.size() - at),
                         cudaMemcpyHostToDevice),
              "fill");
  }
}

// A step whose KV fits the arena in as many layers as possible, up to kCalls.
class Bench {
 public:
  // Sequence i has rows at positions [contexts[i] - chunk, contexts[i]).
  Bench(const DeviceBytes& arena, const std::vector<int32_t>& contexts, int32_t chunk)
      : rows_(int64_t(contexts.size()) * chunk) {
    const int64_t max_context = *std::max_element(contexts.begin(), contexts.end());
    const int64_t max_blocks = (max_context + kBlockSize - 1) / kBlockSize;
    const int64_t blocks = max_blocks * int64_t(contexts.size());
    layout_ = {1, kKvHeads, kBlockSize, kHeadDim, DType::kBFloat16};
    layout_.layers =
        int32_t(std::clamp<int64_t>(kArenaBytes / (blocks * KvBlockBytes(layout_)), 1, kCalls));
    std::vector<int32_t> tables(static_cast<size_t>(blocks));
    std::iota(tables.begin(), tables.end(), 0);
    std::shuffle(tables.begin(), tables.end(), std::mt19937(2));
    std::vector<int32_t> positions, sequences;
    for (size_t i = 0; i < contexts.size(); ++i) {
      for (int32_t position = contexts[i] - chunk; position < contexts[i]; ++position) {
        positions.push_back(position);
        sequences.push_back(int32_t(i));
        flops_ += 4.0 * kHeads * kHeadDim * (position + 1);
      }
      bytes_ += 4.0 * kKvHeads * kHeadDim * contexts[i];
    }
    tables_ = Upload(tables);
    positions_ = Upload(positions);
    sequences_ = Upload(sequences);
    const KvDescriptor descriptor{arena.data(), blocks, tables_->as<int32_t>(), max_blocks};
    descriptor_ = std::make_unique<DeviceBytes>(&descriptor, sizeof(descriptor));
    SetParams();
  }

  double bytes() const { return bytes_; }
  double flops() const { return flops_; }

  double Microseconds() {
    const int calls = flops_ > 1e12 ? 4 : kCalls;
    return MedianGraphMicroseconds([&](cudaStream_t stream) {
             for (int call = 0; call < calls; ++call) {
               params_.layer = call % layout_.layers;
               const CudaLaunch launch = PagedAttentionCuda(
                   params_, rows_, {scratch_->data(), scratch_->size()}, multiprocessors_, stream);
               CudaCheck(static_cast<cudaError_t>(launch.error), "attention");
             }
           }) /
           calls;
  }

 private:
  static std::unique_ptr<DeviceBytes> Upload(const std::vector<int32_t>& values) {
    return std::make_unique<DeviceBytes>(values.data(), values.size() * sizeof(int32_t));
  }

  void SetParams() {
    constexpr int64_t kWidth = int64_t{kHeads} * kHeadDim;
    std::vector<uint16_t> q(static_cast<size_t>(rows_ * kWidth));
    std::mt19937 random(3);
    for (uint16_t& bits : q) bits = BFloat16(float(random()) * 0x1p-31f - 1.0f).bits;
    q_ = std::make_unique<DeviceBytes>(q.data(), q.size() * 2);
    out_ = std::make_unique<DeviceBytes>(q.size() * 2);
    lse_ = std::make_unique<DeviceBytes>(static_cast<size_t>(rows_) * kHeads * sizeof(float));
    params_.q = q_->data();
    params_.q_row_stride = kWidth;
    params_.heads = kHeads;
    params_.positions = positions_->as<int32_t>();
    params_.row_sequences = sequences_->as<int32_t>();
    params_.kv = descriptor_->as<KvDescriptor>();
    params_.layout = layout_;
    params_.ownership = {0, 1};
    params_.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    params_.out = out_->data();
    params_.out_row_stride = kWidth;
    params_.lse = lse_->as<float>();
    params_.lse_row_stride = kHeads;
    params_.activation = DType::kBFloat16;
    const std::vector<char> zeros(PagedAttentionScratchBytes(params_, rows_, multiprocessors_), 0);
    scratch_ = std::make_unique<DeviceBytes>(zeros.data(), zeros.size());
  }

  const int64_t rows_;
  const int multiprocessors_ = Multiprocessors();
  double bytes_ = 0;
  double flops_ = 0;
  KvLayout layout_;
  PagedAttentionParams params_{};
  std::unique_ptr<DeviceBytes> tables_, positions_, sequences_, descriptor_;
  std::unique_ptr<DeviceBytes> q_, out_, lse_, scratch_;
};

void Decode(const DeviceBytes& arena, double copy_speed, size_t batch, int32_t context) {
  Bench bench(arena, std::vector<int32_t>(batch, context), 1);
  const double time = bench.Microseconds();
  std::printf("decode  batch %3zu  context %6d  %9.2f us   copy speed's floor %9.2f us  (%.2f)\n",
              batch, context, time, bench.bytes() / copy_speed, time * copy_speed / bench.bytes());
}

void Prefill(const DeviceBytes& arena, const char* name, const std::vector<int32_t>& contexts,
             int32_t chunk) {
  Bench bench(arena, contexts, chunk);
  const double time = bench.Microseconds();
  std::printf("prefill %-32s  %9.2f us   %7.1f TFLOP/s\n", name, time, bench.flops() / time * 1e-6);
}

void DecodeAll(const DeviceBytes& arena, double copy_speed) {
  for (const int32_t context : {1024, 8192, 32768}) {
    for (const size_t batch : {1, 8, 32}) Decode(arena, copy_speed, batch, context);
  }
  Decode(arena, copy_speed, 64, 1024);
  for (const int32_t context : {64, 256, 512}) Decode(arena, copy_speed, 1, context);
}

void PrefillAll(const DeviceBytes& arena) {
  Prefill(arena, "2048 tokens", {2048}, 2048);
  Prefill(arena, "8192 tokens", {8192}, 8192);
  Prefill(arena, "512 tokens behind 7680", {8192}, 512);
  Prefill(arena, "4 x 512 tokens", {512, 512, 512, 512}, 512);
  Prefill(arena, "64 tokens behind 1984", {2048}, 64);
}

int Main(const std::string& part) {
  const double copy_speed = CopyBytesPerMicrosecond();
  std::printf("%d multiprocessors, a copy %.0f GB/s\n", Multiprocessors(), copy_speed * 1e-3);
  const DeviceBytes arena(static_cast<size_t>(kArenaBytes));
  FillArena(arena);
  if (part != "prefill") DecodeAll(arena, copy_speed);
  if (part != "decode") PrefillAll(arena);
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) { return muster::Main(argc > 1 ? argv[1] : ""); }
