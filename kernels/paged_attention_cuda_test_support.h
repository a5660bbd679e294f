// Steps of paged attention on a GPU and their results by the reference.
#ifndef MUSTER_KERNELS_PAGED_ATTENTION_CUDA_TEST_SUPPORT_H_
#define MUSTER_KERNELS_PAGED_ATTENTION_CUDA_TEST_SUPPORT_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/kernel_test_support.h"
#include "kernels/paged_attention.h"

namespace muster::testing {

inline constexpr int32_t kLayers = 2;
inline constexpr int32_t kLayer = 1;
inline constexpr int kMultiprocessors = 132;

struct Shape {
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 64;
  int32_t block_size = 16;
  DType dtype = DType::kBFloat16;
  DType activation = DType::kBFloat16;
  KvOwnership ownership = {0, 1};
  int64_t window = 0;
  float queries = 1;  // the largest element
  float scale_sign = 1;
  int64_t misalignment = 0;  // of q and out and their rows, in elements
  int unmapped_percent = 0;  // of blocks
};

// Rows `first` to `first + count - 1` of a sequence; padding where sequence is -1.
struct RowRun {
  int32_t sequence;
  int32_t first;
  int32_t count;
};

inline uint32_t FreshSeed() {
  static std::random_device device;
  return device();
}

inline void OnAllCores(int64_t count, const std::function<void(int64_t)>& fn) {
  const auto workers = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> threads;
  for (int64_t worker = 0; worker < workers; ++worker) {
    threads.emplace_back([=, &fn] {
      for (int64_t i = worker; i < count; i += workers) fn(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A cache here and on the device, blocks in random order; what no run has written is NaN.
class Cache {
 public:
  Cache(const Shape& shape, const std::vector<RowRun>& runs, uint32_t seed)
      : shape_(shape),
        layout_{kLayers, shape.kv_heads, shape.block_size, shape.head_dim, shape.dtype} {
    for (const RowRun& run : runs) {
      if (run.sequence < 0) continue;
      lengths_.resize(std::max(lengths_.size(), size_t(run.sequence) + 1), 0);
      int64_t& length = lengths_[size_t(run.sequence)];
      length = std::max<int64_t>(length, int64_t{run.first} + run.count);
    }
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    const int64_t per_rank = int64_t{shape.block_size} * shape.ownership.size;
    max_blocks_ = (longest + per_rank - 1) / per_rank;
    RandomFloats tables_random(seed);
    MakeTables(tables_random);
    const size_t elements = size_t(num_blocks() * KvBlockBytes(layout_)) / SizeOf(shape.dtype);
    arena_ = std::make_unique<TypedArray>(shape.dtype, elements);
    host_ = {arena_->data(), num_blocks(), tables_.data(), max_blocks_};
    RandomFloats fill_random(seed + 1);
    Fill(fill_random);
    Upload();
  }

  const KvLayout& layout() const { return layout_; }
  const KvDescriptor* host() const { return &host_; }
  const KvDescriptor* device() const { return device_descriptor_->as<KvDescriptor>(); }

  void Set(int32_t sequence, int64_t position, float key, float value) {
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      for (int32_t i = 0; i < shape_.head_dim; ++i) {
        Store(KvPart::kKey, sequence, position, head, i, key);
        Store(KvPart::kValue, sequence, position, head, i, value);
      }
    }
    Upload();
  }
  void RemoveArena() {
    host_.base = nullptr;
    const KvDescriptor none{};
    device_descriptor_ = std::make_unique<DeviceBytes>(&none, sizeof(none));
  }
  bool GuardsIntact() const { return device_arena_->GuardsIntact(); }

 private:
  int64_t num_blocks() const { return static_cast<int64_t>(tables_.size()) + 3; }

  void MakeTables(RandomFloats& random) {
    std::vector<int32_t> blocks(lengths_.size() * size_t(max_blocks_));
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i) + 3;
    for (size_t i = blocks.size(); i > 1; --i) {
      std::swap(blocks[i - 1], blocks[size_t(random.Integer(0, int64_t(i) - 1))]);
    }
    tables_ = blocks;
    for (int32_t& block : tables_) {
      if (random.Integer(0, 99) < shape_.unmapped_percent) block = -1;
    }
  }

  void Fill(RandomFloats& random) {
    for (size_t sequence = 0; sequence < lengths_.size(); ++sequence) {
      for (int64_t position = 0; position < lengths_[sequence]; ++position) {
        for (int32_t head = 0; head < shape_.kv_heads; ++head) {
          for (int32_t i = 0; i < shape_.head_dim; ++i) {
            const auto slot = static_cast<int32_t>(sequence);
            Store(KvPart::kKey, slot, position, head, i, random.Uniform(-2, 2));
            Store(KvPart::kValue, slot, position, head, i, random.Uniform(-2, 2));
          }
        }
      }
    }
  }

  void Store(KvPart part, int32_t sequence, int64_t position, int32_t head, int32_t i,
             float value) {
    const int64_t number = position / shape_.block_size;
    if (number % shape_.ownership.size != shape_.ownership.rank) return;
    std::byte* block = KvBlock(host_, layout_, sequence, number / shape_.ownership.size);
    if (block == nullptr) return;
    StoreElement(value, shape_.dtype, block + KvPageOffset(layout_, kLayer, part, head),
                 position % shape_.block_size * shape_.head_dim + i);
  }

  void Upload() {
    device_arena_ =
        std::make_unique<DeviceBytes>(arena_->data(), arena_->size() * SizeOf(shape_.dtype));
    device_tables_ =
        std::make_unique<DeviceBytes>(tables_.data(), tables_.size() * sizeof(int32_t));
    const KvDescriptor descriptor{device_arena_->data(), num_blocks(),
                                  device_tables_->as<int32_t>(), max_blocks_};
    device_descriptor_ = std::make_unique<DeviceBytes>(&descriptor, sizeof(descriptor));
  }

  const Shape shape_;
  const KvLayout layout_;
  std::vector<int64_t> lengths_;
  int64_t max_blocks_;
  std::vector<int32_t> tables_;
  std::unique_ptr<TypedArray> arena_;
  KvDescriptor host_;
  std::unique_ptr<DeviceBytes> device_arena_;
  std::unique_ptr<DeviceBytes> device_tables_;
  std::unique_ptr<DeviceBytes> device_descriptor_;
};

// Results as float32, rows packed.
struct Results {
  std::vector<float> out;
  std::vector<float> lse;
};

class Step {
 public:
  Step(const Shape& shape, const Cache& cache, const std::vector<RowRun>& runs, uint32_t seed)
      : shape_(shape), cache_(cache), width_(int64_t{shape.heads} * shape.head_dim) {
    for (const RowRun& run : runs) {
      for (int32_t i = 0; i < run.count; ++i) {
        sequences_.push_back(run.sequence);
        positions_.push_back(run.first + i);
      }
    }
    q_stride_ = width_ + shape.misalignment;
    out_stride_ = width_ + 3 * shape.misalignment;
    q_ = std::make_unique<TypedArray>(shape.activation, size_t(rows() * q_stride_));
    RandomFloats random(seed);
    random.Fill(*q_, -shape.queries, shape.queries);
  }

  int64_t rows() const { return static_cast<int64_t>(sequences_.size()); }
  TypedArray& q() { return *q_; }
  std::vector<int32_t>& positions() { return positions_; }
  float scale() const { return shape_.scale_sign / std::sqrt(float(shape_.head_dim)); }

  Results Reference() const {
    TypedArray out(DType::kFloat32, size_t(rows() * width_));
    std::vector<float> lse(size_t(rows() * shape_.heads));
    PagedAttentionParams params = Common();
    // The reference reads any type but rounds what it stores: float32 stays exact.
    TypedArray q(DType::kFloat32, q_->size());
    for (size_t i = 0; i < q.size(); ++i) q.Set(i, q_->Get(i));
    params.activation = DType::kFloat32;
    params.q = q.data();
    params.positions = positions_.data();
    params.row_sequences = sequences_.data();
    params.kv = cache_.host();
    params.out = out.data();
    params.out_row_stride = width_;
    params.lse = lse.data();
    params.lse_row_stride = shape_.heads;
    OnAllCores(rows(), [&](int64_t row) {
      PagedAttentionReference(params, {row, row + 1}, {0, shape_.heads});
    });
    Results results{std::vector<float>(out.size()), lse};
    for (size_t i = 0; i < out.size(); ++i) results.out[i] = out.Get(i);
    return results;
  }

  // `times` launches one after the other share the scratch; checks what lies around the results.
  Results OnDevice(int times = 1) const {
    return Launched([&](const auto& launch) {
      for (int i = 0; i < times; ++i) CudaFinish(launch(nullptr));
    });
  }

  // As a graph that is launched three times.
  Results AsGraph() const {
    return Launched([&](const auto& launch) {
      cudaStream_t stream;
      cudaGraph_t graph;
      cudaGraphExec_t exec;
      CudaCheck(cudaStreamCreate(&stream), "stream");
      CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
      EXPECT_TRUE(launch(stream).ok());
      CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
      CudaCheck(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
      for (int i = 0; i < 3; ++i) CudaCheck(cudaGraphLaunch(exec, stream), "launch");
      CudaCheck(cudaStreamSynchronize(stream), "graph");
      cudaGraphExecDestroy(exec);
      cudaGraphDestroy(graph);
      cudaStreamDestroy(stream);
    });
  }

 private:
  // Calls run(launch), where launch(stream) enqueues the step.
  template <typename Fn>
  Results Launched(const Fn& run) const {
    const auto shift = static_cast<size_t>(shape_.misalignment);
    const DeviceBytes q = ToDevice(*q_, shift);
    const DeviceBytes positions = ToDevice(positions_);
    const DeviceBytes sequences = ToDevice(sequences_);
    const size_t element = SizeOf(shape_.activation);
    const DeviceBytes out(size_t(rows() * out_stride_) * element, shift * element);
    const int64_t lse_stride = shape_.heads + 1;
    const DeviceBytes lse(size_t(rows() * lse_stride) * sizeof(float));
    PagedAttentionParams params = Common();
    params.q = q.data();
    params.positions = positions.as<int32_t>();
    params.row_sequences = sequences.as<int32_t>();
    params.kv = cache_.device();
    params.out = out.data();
    params.out_row_stride = out_stride_;
    params.lse = lse.as<float>();
    params.lse_row_stride = lse_stride;
    const size_t scratch_bytes = PagedAttentionScratchBytes(params, rows(), kMultiprocessors);
    const std::vector<char> zeros(std::max<size_t>(scratch_bytes, 1), 0);
    const DeviceBytes scratch = ToDevice(zeros);
    run([&](cudaStream_t stream) {
      return PagedAttentionCuda(params, rows(), {scratch.data(), scratch_bytes}, kMultiprocessors,
                                stream);
    });
    EXPECT_TRUE(out.GuardsIntact() && lse.GuardsIntact() && scratch.GuardsIntact());
    EXPECT_TRUE(cache_.GuardsIntact());
    return {Packed(ToHost(out, shape_.activation), out_stride_, width_),
            Packed(ToHost(lse, DType::kFloat32), lse_stride, shape_.heads)};
  }

  PagedAttentionParams Common() const {
    PagedAttentionParams params{};
    params.q_row_stride = q_stride_;
    params.heads = shape_.heads;
    params.layout = cache_.layout();
    params.ownership = shape_.ownership;
    params.layer = kLayer;
    params.scale = scale();
    params.window = shape_.window;
    params.activation = shape_.activation;
    return params;
  }

  // Between the rows nothing was written.
  std::vector<float> Packed(const std::vector<float>& strided, int64_t stride,
                            int64_t width) const {
    std::vector<float> packed;
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t i = 0; i < stride; ++i) {
        const float value = strided[size_t(row * stride + i)];
        if (i < width) {
          packed.push_back(value);
        } else {
          EXPECT_TRUE(std::isnan(value)) << "behind row " << row;
        }
      }
    }
    return packed;
  }

  const Shape shape_;
  const Cache& cache_;
  const int64_t width_;
  int64_t q_stride_;
  int64_t out_stride_;
  std::vector<int32_t> sequences_;
  std::vector<int32_t> positions_;
  std::unique_ptr<TypedArray> q_;
};

}  // namespace muster::testing

#endif  // MUSTER_KERNELS_PAGED_ATTENTION_CUDA_TEST_SUPPORT_H_
