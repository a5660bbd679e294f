// Device times of the elementwise kernels at the shapes of an 8B Llama, in bfloat16, each beside
// the time in which a 16-byte copy moves as many bytes. Arrays that fit in the L2 cache stay there
// from one run to the next, as activations do from one kernel to the next.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels/add_bias.h"
#include "kernels/block_digest_cuda.h"
#include "kernels/convert.h"
#include "kernels/cuda_test_support.h"
#include "kernels/embedding.h"
#include "kernels/gather_rows.h"
#include "kernels/rope_kv.h"
#include "kernels/swiglu.h"

namespace muster {
namespace {

using ::muster::testing::CudaCheck;
using ::muster::testing::DeviceBytes;
using ::muster::testing::ToDevice;

constexpr DType kType = DType::kBFloat16;
constexpr int64_t kElement = 2;
constexpr int64_t kHidden = 4096;
constexpr int64_t kFfn = 14336;
constexpr int64_t kVocabulary = 128256;
constexpr int32_t kHeads = 32;
constexpr int32_t kKvHeads = 8;
constexpr int32_t kHeadDim = 128;
constexpr int32_t kBlockSize = 16;
constexpr int64_t kMaxRows = 2048;
constexpr int kRepeats = 20;  // in a graph
constexpr int kLaunches = 15;

using Op = std::function<CudaLaunch(CudaStream)>;

cudaGraphExec_t Capture(cudaStream_t stream, const Op& op) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
  for (int i = 0; i < kRepeats; ++i) CudaCheck(static_cast<cudaError_t>(op(stream).error), "op");
  CudaCheck(cudaStreamEndCapture(stream, &graph), "end");
  CudaCheck(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  CudaCheck(cudaGraphDestroy(graph), "destroy");
  return exec;
}

// The median time of one op in microseconds.
double Time(const Op& op) {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  CudaCheck(cudaEventCreate(&begin), "event");
  CudaCheck(cudaEventCreate(&end), "event");
  const cudaGraphExec_t exec = Capture(stream, op);
  std::vector<float> times;
  for (int i = 0; i < kLaunches + 2; ++i) {
    CudaCheck(cudaEventRecord(begin, stream), "record");
    CudaCheck(cudaGraphLaunch(exec, stream), "launch");
    CudaCheck(cudaEventRecord(end, stream), "record");
    CudaCheck(cudaStreamSynchronize(stream), "run");
    float milliseconds = 0;
    CudaCheck(cudaEventElapsedTime(&milliseconds, begin, end), "time");
    if (i >= 2) times.push_back(milliseconds);
  }
  CudaCheck(cudaGraphExecDestroy(exec), "destroy");
  CudaCheck(cudaStreamDestroy(stream), "destroy");
  std::nth_element(times.begin(), times.begin() + kLaunches / 2, times.end());
  return times[kLaunches / 2] * 1e3 / kRepeats;
}

class Table {
 public:
  explicit Table(double bytes_per_us) : bytes_per_us_(bytes_per_us) {
    std::printf("16-byte copy of 1 GiB: %.2f TB/s\n", bytes_per_us * 1e-6);
    std::printf("%-28s %6s %9s %9s %6s\n", "kernel", "rows", "us", "floor us", "%");
  }
  void Row(const char* name, int64_t rows, int64_t bytes, const Op& op) const {
    const double us = Time(op);
    const double floor = static_cast<double>(bytes) / bytes_per_us_;
    std::printf("%-28s %6ld %9.2f %9.2f %6.1f\n", name, static_cast<long>(rows), us, floor,
                100 * floor / us);
  }

 private:
  double bytes_per_us_;
};

struct Zeros : DeviceBytes {
  explicit Zeros(int64_t bytes) : DeviceBytes(static_cast<size_t>(bytes)) {
    CudaCheck(cudaMemset(data(), 0, size()), "cudaMemset");
  }
};

// Bytes per microsecond, read and written, far larger than any cache.
double CopyRate() {
  constexpr int64_t kBytes = int64_t{1} << 29;
  const Zeros from(kBytes), to(kBytes);
  const ElementConversion params{from.data(), kType, to.data(), kType};
  const double us =
      Time([&](CudaStream stream) { return ConvertCuda(params, kBytes / kElement, stream); });
  return 2.0 * kBytes / us;
}

void EmbedAndGather(const Table& table) {
  std::vector<int32_t> ids(kMaxRows);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
  const DeviceBytes device_ids = ToDevice(ids);
  const Zeros weights(kVocabulary * kHidden * kElement);
  const Zeros out(kMaxRows * kHidden * kElement);
  for (const int64_t rows : {int64_t{1}, int64_t{32}, kMaxRows}) {
    const int64_t bytes = 2 * rows * kHidden * kElement;
    const EmbeddingParams params{device_ids.as<int32_t>(),
                                 weights.data(),
                                 kType,
                                 0,
                                 kVocabulary,
                                 kHidden,
                                 out.data(),
                                 kType};
    table.Row("embedding", rows, bytes,
              [&](CudaStream stream) { return EmbeddingCuda(params, rows, stream); });
    const RowGatherParams gather{weights.data(), device_ids.as<int32_t>(), kHidden, out.data(),
                                 kType};
    table.Row("gather rows", rows, bytes,
              [&](CudaStream stream) { return GatherRowsCuda(gather, rows, stream); });
  }
}

void SwiGluAndBias(const Table& table) {
  const Zeros gate_up(kMaxRows * 2 * kFfn * kElement);
  const Zeros out(kMaxRows * kFfn * kElement);
  const Zeros bias(2 * kFfn * int64_t{sizeof(float)});
  for (const int64_t rows : {int64_t{1}, int64_t{32}, kMaxRows}) {
    const SwiGluParams params{gate_up.data(), 2 * kFfn, kFfn, out.data(), kFfn, kType};
    table.Row("swiglu", rows, 3 * rows * kFfn * kElement,
              [&](CudaStream stream) { return SwiGluCuda(params, rows, stream); });
    const AddBiasParams add{out.data(), 6144, 6144, bias.as<float>(), kType};
    table.Row("add bias (6144)", rows, 2 * rows * 6144 * kElement,
              [&](CudaStream stream) { return AddBiasCuda(add, rows, stream); });
    const ElementConversion convert{gate_up.data(), DType::kFloat32, out.data(), kType};
    table.Row("float32 to bf16 (4096)", rows, rows * kHidden * 6,
              [&](CudaStream stream) { return ConvertCuda(convert, rows * kHidden, stream); });
  }
}

// One sequence per row where there are few rows, one sequence otherwise.
void Rope(const Table& table) {
  constexpr int64_t kBlocks = kMaxRows / kBlockSize;
  constexpr int64_t kWidth = (kHeads + 2 * kKvHeads) * kHeadDim;
  const KvLayout layout{1, kKvHeads, kBlockSize, kHeadDim, kType};
  std::vector<int32_t> positions(kMaxRows), sequences(kMaxRows, 0), tables(kBlocks);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<int32_t>(i * 37 % kBlocks);
  const DeviceBytes device_positions = ToDevice(positions), device_sequences = ToDevice(sequences);
  const DeviceBytes device_tables = ToDevice(tables);
  const Zeros arena(kBlocks * KvBlockBytes(layout));
  const KvDescriptor descriptor{arena.data(), kBlocks, device_tables.as<int32_t>(), kBlocks};
  const DeviceBytes kv(&descriptor, sizeof(descriptor));
  const Zeros qkv(kMaxRows * kWidth * kElement);
  const Zeros angles(kMaxRows * kHeadDim / 2 * int64_t{sizeof(float)});
  const Zeros norm(kHeadDim * int64_t{sizeof(float)});
  for (const bool norms : {false, true}) {
    const RopeKvParams params{.qkv = qkv.data(),
                              .row_stride = kWidth,
                              .heads = kHeads,
                              .positions = device_positions.as<int32_t>(),
                              .row_sequences = device_sequences.as<int32_t>(),
                              .cos = angles.as<float>(),
                              .sin = angles.as<float>(),
                              .kv = kv.as<KvDescriptor>(),
                              .layout = layout,
                              .ownership = {0, 1},
                              .layer = 0,
                              .q_norm = norms ? norm.as<float>() : nullptr,
                              .k_norm = norms ? norm.as<float>() : nullptr,
                              .norm_eps = 1e-5f,
                              .activation = kType};
    for (const int64_t rows : {int64_t{1}, int64_t{32}, kMaxRows}) {
      const int64_t bytes = rows * kElement * (2 * kWidth + kKvHeads * kHeadDim);
      table.Row(norms ? "rope, KV write, norms" : "rope, KV write", rows, bytes,
                [&](CudaStream stream) { return RopeKvCuda(params, rows, stream); });
    }
  }
}

void Digests(const Table& table) {
  constexpr int64_t kBlockBytes = int64_t{2} << 20;
  constexpr int64_t kBlocks = 64;
  const Zeros source(kBlocks * kBlockBytes), target(kBlocks * kBlockBytes);
  std::vector<void*> from, to;
  for (int64_t i = 0; i < kBlocks; ++i) {
    from.push_back(source.as<std::byte>() + i * kBlockBytes);
    to.push_back(target.as<std::byte>() + i * kBlockBytes);
  }
  const DeviceBytes device_from = ToDevice(from), device_to = ToDevice(to);
  const Zeros lanes(kBlocks * kDigestLanes * int64_t{sizeof(uint64_t)});
  for (const int64_t blocks : {int64_t{1}, int64_t{8}, kBlocks}) {
    BlockDigestParams params{device_from.as<const void*>(), nullptr, blocks, kBlockBytes,
                             lanes.as<uint64_t>()};
    table.Row("digest of 2 MiB blocks", blocks, blocks * kBlockBytes,
              [&](CudaStream stream) { return BlockDigestCuda(params, stream); });
    params.to = device_to.as<void*>();
    table.Row("digest and copy", blocks, 2 * blocks * kBlockBytes,
              [&](CudaStream stream) { return BlockDigestCuda(params, stream); });
  }
}

}  // namespace
}  // namespace muster

int main() {
  const muster::Table table(muster::CopyRate());
  muster::EmbedAndGather(table);
  muster::SwiGluAndBias(table);
  muster::Rope(table);
  muster::Digests(table);
}
