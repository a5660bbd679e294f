#include "worker/model/cuda/cuda_device_speed.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "kernels/dummy_weights.h"
#include "kernels/streaming_read.h"
#include "worker/model/cuda/cuda_linear.h"

namespace muster {
namespace {

constexpr size_t kBytesRead = size_t{512} << 20;  // several times what an L2 cache holds
constexpr int kPasses = 9;
constexpr int kMatrix = 8192;  // rows and columns
constexpr int kFloatMatrix = 4096;

// The median time of kPasses passes in seconds, after one that warms up.
absl::StatusOr<double> MedianPass(CudaDeviceStream& stream,
                                  absl::FunctionRef<absl::Status()> pass) {
  cudaEvent_t events[kPasses + 1] = {};
  const absl::Cleanup destroy = [&] {
    for (cudaEvent_t event : events) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  };
  for (cudaEvent_t& event : events) {
    MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&event), "making an event"));
    MUSTER_RETURN_IF_ERROR(pass());
    MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event, stream.get()), "recording an event"));
  }
  MUSTER_RETURN_IF_ERROR(stream.Synchronize());
  std::vector<float> passes(kPasses);
  for (int i = 0; i < kPasses; ++i) {
    MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventElapsedTime(&passes[i], events[i], events[i + 1]),
                                      "asking for a time"));
  }
  std::nth_element(passes.begin(), passes.begin() + kPasses / 2, passes.end());
  return passes[kPasses / 2] * 1e-3;
}

absl::StatusOr<double> MeasureRead(CudaDevice& device, CudaDeviceStream& stream) {
  Ledger ledger;
  MUSTER_ASSIGN_OR_RETURN(const Buffer memory, device.Allocate(kBytesRead, "measurement", ledger));
  MUSTER_ASSIGN_OR_RETURN(const Buffer seen, device.Allocate(4, "measurement", ledger));
  const auto read = [&] {
    return CudaStatus(StreamingReadCuda(memory.data(), kBytesRead, seen.as<uint32_t>(),
                                        device.multiprocessor_budget(), stream.get()),
                      "reading");
  };
  MUSTER_ASSIGN_OR_RETURN(const double seconds, MedianPass(stream, read));
  return static_cast<double>(kBytesRead) / seconds;
}

absl::StatusOr<Buffer> RandomSquare(CudaDevice& device, CudaDeviceStream& stream, int size,
                                    DType dtype, Ledger& ledger) {
  MUSTER_ASSIGN_OR_RETURN(Buffer square, device.Allocate(size_t{1} * size * size * SizeOf(dtype),
                                                         "measurement", ledger));
  const DummyWeightsParams params{.tensor = {.key = 1, .step = 1.0f / 256},
                                  .row_stride = size,
                                  .columns = size,
                                  .dtype = dtype,
                                  .out = square.data()};
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(DummyWeightsCuda(params, size, stream.get()), "making random numbers"));
  return square;
}

absl::StatusOr<double> MeasureProduct(CudaDevice& device, CudaDeviceStream& stream, DType dtype) {
  const int size = dtype == DType::kFloat32 ? kFloatMatrix : kMatrix;
  Ledger ledger;
  MUSTER_ASSIGN_OR_RETURN(const auto library, CublasLt::Create(device, ledger));
  MUSTER_ASSIGN_OR_RETURN(
      const auto product,
      CudaLinear::Create(*library, {.n = size, .k = size, .dtype = dtype, .y_dtype = dtype}));
  MUSTER_RETURN_IF_ERROR(product->Prepare(size));
  MUSTER_ASSIGN_OR_RETURN(const Buffer x, RandomSquare(device, stream, size, dtype, ledger));
  MUSTER_ASSIGN_OR_RETURN(const Buffer weights, RandomSquare(device, stream, size, dtype, ledger));
  MUSTER_ASSIGN_OR_RETURN(const Buffer y, RandomSquare(device, stream, size, dtype, ledger));
  const auto multiply = [&] {
    return product->Run(stream.get(), size, {x.data(), weights.data(), y.data()});
  };
  MUSTER_ASSIGN_OR_RETURN(const double seconds, MedianPass(stream, multiply));
  return 2.0 * size * size * size / seconds;
}

}  // namespace

absl::StatusOr<DeviceSpeed> MeasureCuda(CudaDevice& device, DType dtype) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, device.CreateStream());
  CudaDeviceStream& cuda = CudaDeviceStream::From(*stream);
  DeviceSpeed speed;
  MUSTER_ASSIGN_OR_RETURN(speed.read_bytes_per_second, MeasureRead(device, cuda));
  MUSTER_ASSIGN_OR_RETURN(speed.matrix_flops_per_second, MeasureProduct(device, cuda, dtype));
  return speed;
}

}  // namespace muster
