// Times of the matrix products of an 8B Llama in bfloat16, by the kernel of few rows and by
// cuBLASLt, against the rate at which this device reads. Weights of several layers take turns, so
// that no cache holds them.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "kernels/dummy_weights.h"
#include "kernels/skinny_matmul.h"
#include "worker/model/cuda/cuda_device_speed.h"
#include "worker/model/cuda/cuda_linear.h"

namespace muster {
namespace {

constexpr DType kType = DType::kBFloat16;
constexpr int64_t kElement = 2;
constexpr size_t kWeightBytes = size_t{2200} << 20;
constexpr int kMaxRows = 2048;
constexpr int kOps = 20;  // in a graph
constexpr int kLaunches = 7;

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;

  int64_t bytes() const { return n * k * kElement; }
};

constexpr Shape kShapes[] = {
    {"qkv     6144 x 4096", 6144, 4096},     {"o_proj  4096 x 4096", 4096, 4096},
    {"gate_up 28672 x 4096", 28672, 4096},   {"down    4096 x 14336", 4096, 14336},
    {"lm_head 128256 x 4096", 128256, 4096}, {"qkv/2   3072 x 4096", 3072, 4096},
    {"o_proj/4 4096 x 1024", 4096, 1024},    {"gate_up/4 7168 x 4096", 7168, 4096},
    {"down/4  4096 x 3584", 4096, 3584},
};

class Benchmark {
 public:
  static absl::StatusOr<std::unique_ptr<Benchmark>> Create(CudaDevice& device) {
    std::unique_ptr<Benchmark> benchmark(new Benchmark(device));
    MUSTER_RETURN_IF_ERROR(benchmark->Start());
    return benchmark;
  }

  absl::Status Run() {
    MUSTER_ASSIGN_OR_RETURN(const DeviceSpeed speed, MeasureCuda(device_, kType));
    const double read = speed.read_bytes_per_second;
    std::printf("plain read %.0f GB/s; square product %.0f TFLOP/s\n", read * 1e-9,
                speed.matrix_flops_per_second * 1e-12);
    std::printf("%-22s %5s | %9s %7s %6s | %9s %7s %6s\n", "bfloat16", "rows", "kernel us", "GB/s",
                "read", "cuBLAS us", "GB/s", "read");
    for (const Shape& shape : kShapes) MUSTER_RETURN_IF_ERROR(FewRows(shape, read));
    for (const Shape& shape : kShapes) MUSTER_RETURN_IF_ERROR(ManyRows(shape));
    return absl::OkStatus();
  }

 private:
  explicit Benchmark(CudaDevice& device) : device_(device) {}

  absl::Status Start() {
    MUSTER_ASSIGN_OR_RETURN(stream_, device_.CreateStream());
    MUSTER_ASSIGN_OR_RETURN(library_, CublasLt::Create(device_, ledger_));
    MUSTER_ASSIGN_OR_RETURN(weights_, Random(kWeightBytes));
    MUSTER_ASSIGN_OR_RETURN(x_, Random(size_t{kMaxRows} * 14336 * kElement));
    MUSTER_ASSIGN_OR_RETURN(y_, Random(size_t{kMaxRows} * 28672 * kElement));
    return absl::OkStatus();
  }

  absl::StatusOr<Buffer> Random(size_t bytes) {
    MUSTER_ASSIGN_OR_RETURN(Buffer buffer, device_.Allocate(bytes, "benchmark", ledger_));
    constexpr int64_t kColumns = 1024;
    const DummyWeightsParams params{.tensor = {.key = 1, .step = 1.0f / 4096},
                                    .row_stride = kColumns,
                                    .columns = kColumns,
                                    .dtype = kType,
                                    .out = buffer.data()};
    const auto rows = static_cast<int64_t>(bytes) / kElement / kColumns;
    MUSTER_RETURN_IF_ERROR(CudaStatus(DummyWeightsCuda(params, rows, cuda()), "random numbers"));
    return buffer;
  }

  CudaStream cuda() const { return CudaDeviceStream::From(*stream_).get(); }

  // Of each of the products of a graph, in seconds: the median of some launches.
  absl::StatusOr<double> Time(absl::FunctionRef<absl::Status(int)> product) {
    MUSTER_ASSIGN_OR_RETURN(const auto graph, device_.Capture(*stream_, [&]() -> absl::Status {
      for (int i = 0; i < kOps; ++i) MUSTER_RETURN_IF_ERROR(product(i));
      return absl::OkStatus();
    }));
    cudaEvent_t events[kLaunches + 1];
    for (cudaEvent_t& event : events) {
      MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&event), "event"));
      MUSTER_RETURN_IF_ERROR(graph->Launch(*stream_));
      MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event, cuda()), "event"));
    }
    MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
    std::vector<float> times(kLaunches);
    for (int i = 0; i < kLaunches; ++i) cudaEventElapsedTime(&times[i], events[i], events[i + 1]);
    for (cudaEvent_t event : events) cudaEventDestroy(event);
    std::nth_element(times.begin(), times.begin() + kLaunches / 2, times.end());
    return times[kLaunches / 2] * 1e-3 / kOps;
  }

  const void* Layer(const Shape& shape, int i) const {
    const auto layers = static_cast<int64_t>(kWeightBytes) / shape.bytes();
    return weights_.as<std::byte>() + i % layers * shape.bytes();
  }

  absl::Status FewRows(const Shape& shape, double read) {
    MUSTER_ASSIGN_OR_RETURN(const auto product,
                            CudaLinear::Create(*library_, {shape.n, shape.k, kType, kType}));
    MUSTER_RETURN_IF_ERROR(product->Prepare(32));
    for (const int rows : {1, 2, 4, 8, 16, 32}) {
      MUSTER_ASSIGN_OR_RETURN(const double kernel, Time([&](int i) {
                                return CudaStatus(
                                    SkinnyMatmulCuda(ParamsOf(shape, i, rows), shape.n,
                                                     device_.multiprocessor_budget(), cuda()),
                                    "product");
                              }));
      MUSTER_ASSIGN_OR_RETURN(
          const double cublas, Time([&](int i) {
            return product->Run(cuda(), rows, {x_.data(), Layer(shape, i), y_.data()});
          }));
      const auto bytes = static_cast<double>(shape.bytes());
      std::printf("%-22s %5d | %9.2f %7.0f %5.1f%% | %9.2f %7.0f %5.1f%%\n", shape.name, rows,
                  kernel * 1e6, bytes / kernel * 1e-9, 100 * bytes / kernel / read, cublas * 1e6,
                  bytes / cublas * 1e-9, 100 * bytes / cublas / read);
    }
    return absl::OkStatus();
  }

  SkinnyMatmulParams ParamsOf(const Shape& shape, int layer, int rows) const {
    return {.x = x_.data(),
            .x_row_stride = shape.k,
            .weights = Layer(shape, layer),
            .weights_row_stride = shape.k,
            .dtype = kType,
            .rows = rows,
            .k = shape.k,
            .y = y_.data(),
            .y_row_stride = shape.n,
            .x_dtype = kType,
            .y_dtype = kType};
  }

  absl::Status ManyRows(const Shape& shape) {
    if (shape.n > 28672) return absl::OkStatus();
    MUSTER_ASSIGN_OR_RETURN(const auto product,
                            CudaLinear::Create(*library_, {shape.n, shape.k, kType, kType}));
    MUSTER_RETURN_IF_ERROR(product->Prepare(kMaxRows));
    for (const int rows : {512, kMaxRows}) {
      MUSTER_ASSIGN_OR_RETURN(
          const double seconds, Time([&](int i) {
            return product->Run(cuda(), rows, {x_.data(), Layer(shape, i), y_.data()});
          }));
      const double flops = 2.0 * rows * static_cast<double>(shape.n * shape.k);
      std::printf("%-22s %5d rows by cuBLASLt: %8.1f us, %.0f TFLOP/s\n", shape.name, rows,
                  seconds * 1e6, flops / seconds * 1e-12);
    }
    return absl::OkStatus();
  }

  CudaDevice& device_;
  Ledger ledger_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<CublasLt> library_;
  Buffer weights_, x_, y_;
};

absl::Status Main() {
  MUSTER_ASSIGN_OR_RETURN(const auto device, CudaDevice::Create({}));
  MUSTER_ASSIGN_OR_RETURN(const auto benchmark, Benchmark::Create(*device));
  return benchmark->Run();
}

}  // namespace
}  // namespace muster

int main() {
  const absl::Status status = muster::Main();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
