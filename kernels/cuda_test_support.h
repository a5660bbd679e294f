// Arrays on a GPU for the tests of CUDA kernels.
#ifndef MUSTER_KERNELS_CUDA_TEST_SUPPORT_H_
#define MUSTER_KERNELS_CUDA_TEST_SUPPORT_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/kernel_test_support.h"

namespace muster::testing {

// Ends the program: a test goes no further after an error of CUDA, which stays.
inline void CudaCheck(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(3);
}

// Waits for what was launched, and for its errors.
inline void CudaFinish(CudaLaunch launch) {
  CudaCheck(static_cast<cudaError_t>(launch.error), "launch");
  CudaCheck(cudaDeviceSynchronize(), "kernel");
}

// Bytes on the device, `misalignment` bytes off a 256-byte boundary; poisoned with NaN of every
// type, as are the guards around it, which CheckGuards compares.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes, size_t misalignment = 0)
      : bytes_(bytes), misalignment_(misalignment) {
    CudaCheck(cudaMalloc(&memory_, bytes_ + misalignment_ + 2 * kGuard), "cudaMalloc");
    CudaCheck(cudaMemset(memory_, 0xFF, bytes_ + misalignment_ + 2 * kGuard), "cudaMemset");
  }
  DeviceBytes(const void* from, size_t bytes, size_t misalignment = 0)
      : DeviceBytes(bytes, misalignment) {
    CudaCheck(cudaMemcpy(data(), from, bytes, cudaMemcpyHostToDevice), "upload");
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  ~DeviceBytes() { cudaFree(memory_); }

  void* data() const { return static_cast<char*>(memory_) + kGuard + misalignment_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data());
  }
  size_t size() const { return bytes_; }

  void Download(void* to) const {
    CudaCheck(cudaMemcpy(to, data(), bytes_, cudaMemcpyDeviceToHost), "download");
  }
  // The bytes before and behind it are as they were.
  bool GuardsIntact() const {
    std::vector<unsigned char> all(bytes_ + misalignment_ + 2 * kGuard);
    CudaCheck(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost), "download");
    for (size_t i = 0; i < all.size(); ++i) {
      const bool inside = i >= kGuard + misalignment_ && i < kGuard + misalignment_ + bytes_;
      if (!inside && all[i] != 0xFF) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;

  size_t bytes_;
  size_t misalignment_;
  void* memory_ = nullptr;
};

// The device's copy of an array of the host, `misalignment` elements off.
inline DeviceBytes ToDevice(const TypedArray& array, size_t misalignment = 0) {
  const size_t element = SizeOf(array.dtype());
  return DeviceBytes(array.data(), array.size() * element, misalignment * element);
}
template <typename T>
DeviceBytes ToDevice(const std::vector<T>& array) {
  return DeviceBytes(array.data(), array.size() * sizeof(T));
}

// As float32.
inline std::vector<float> ToHost(const DeviceBytes& from, DType dtype) {
  const size_t count = from.size() / SizeOf(dtype);
  TypedArray typed(dtype, count);
  from.Download(typed.data());
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = typed.Get(i);
  return values;
}

// Relative rounding of one store.
inline double RoundingOf(DType dtype) {
  return dtype == DType::kFloat32 ? 0x1p-24 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

}  // namespace muster::testing

#endif  // MUSTER_KERNELS_CUDA_TEST_SUPPORT_H_
