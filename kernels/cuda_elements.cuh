// Elements of the types of activations on the device, read and written as float. Conversions from
// float round to nearest, ties to even, and keep -0 and subnormals; a NaN stays a (quiet) NaN.
#ifndef MUSTER_KERNELS_CUDA_ELEMENTS_CUH_
#define MUSTER_KERNELS_CUDA_ELEMENTS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"

namespace muster {

// How elements lie in the 32-bit words of a vector.
template <typename T>
struct CudaElement;

template <>
struct CudaElement<float> {
  static constexpr int kPerWord = 1;
  static __device__ float ToFloat(float x) { return x; }
  static __device__ float FromFloat(float x) { return x; }
  static __device__ void Unpack(uint32_t word, float* to) { to[0] = __uint_as_float(word); }
  static __device__ uint32_t Pack(const float* from) { return __float_as_uint(from[0]); }
};

template <>
struct CudaElement<__nv_bfloat16> {
  static constexpr int kPerWord = 2;
  static __device__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __device__ __nv_bfloat16 FromFloat(float x) { return __float2bfloat16_rn(x); }
  static __device__ void Unpack(uint32_t word, float* to) {
    to[0] = __uint_as_float(word << 16);
    to[1] = __uint_as_float(word & 0xFFFF0000u);
  }
  static __device__ uint32_t Pack(const float* from) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(from[0], from[1]);
    return __bfloat16_as_ushort(pair.x) | uint32_t{__bfloat16_as_ushort(pair.y)} << 16;
  }
};

template <>
struct CudaElement<__half> {
  static constexpr int kPerWord = 2;
  static __device__ float ToFloat(__half x) { return __half2float(x); }
  static __device__ __half FromFloat(float x) { return __float2half_rn(x); }
  static __device__ void Unpack(uint32_t word, float* to) {
    to[0] = __half2float(__ushort_as_half(static_cast<uint16_t>(word)));
    to[1] = __half2float(__ushort_as_half(static_cast<uint16_t>(word >> 16)));
  }
  static __device__ uint32_t Pack(const float* from) {
    const __half2 pair = __floats2half2_rn(from[0], from[1]);
    return __half_as_ushort(pair.x) | uint32_t{__half_as_ushort(pair.y)} << 16;
  }
};

// Elements that a thread moves at a time where everything is aligned to 16 bytes; else one.
constexpr int kVectorElements = 8;

// Whether vectors of any type may begin here.
__host__ __device__ inline bool IsVectorAligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

template <int N, typename T>
__device__ void LoadFloats(const T* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = CudaElement<T>::ToFloat(*from);
  } else {
    constexpr int kPerWord = CudaElement<T>::kPerWord;
#pragma unroll
    for (int i = 0; i < N; i += 4 * kPerWord) {
      const uint4 words = *reinterpret_cast<const uint4*>(from + i);
      CudaElement<T>::Unpack(words.x, to + i);
      CudaElement<T>::Unpack(words.y, to + i + kPerWord);
      CudaElement<T>::Unpack(words.z, to + i + 2 * kPerWord);
      CudaElement<T>::Unpack(words.w, to + i + 3 * kPerWord);
    }
  }
}

template <int N, typename T>
__device__ void StoreFloats(const float (&from)[N], T* to) {
  if constexpr (N == 1) {
    *to = CudaElement<T>::FromFloat(from[0]);
  } else {
    constexpr int kPerWord = CudaElement<T>::kPerWord;
#pragma unroll
    for (int i = 0; i < N; i += 4 * kPerWord) {
      *reinterpret_cast<uint4*>(to + i) =
          make_uint4(CudaElement<T>::Pack(from + i), CudaElement<T>::Pack(from + i + kPerWord),
                     CudaElement<T>::Pack(from + i + 2 * kPerWord),
                     CudaElement<T>::Pack(from + i + 3 * kPerWord));
    }
  }
}

// Converts N elements; those of one type keep their bits.
template <int N, typename From, typename To>
__device__ void CopyElements(const From* from, To* to) {
  if constexpr (!std::is_same_v<From, To>) {
    float values[N];
    LoadFloats(from, values);
    StoreFloats(values, to);
  } else if constexpr (N == 1) {
    *to = *from;
  } else {
#pragma unroll
    for (size_t word = 0; word < N * sizeof(To) / sizeof(uint4); ++word) {
      reinterpret_cast<uint4*>(to)[word] = reinterpret_cast<const uint4*>(from)[word];
    }
  }
}

// Rounds to T and back.
template <typename T, int N>
__device__ void RoundFloats(float (&values)[N]) {
#pragma unroll
  for (float& value : values) value = CudaElement<T>::ToFloat(CudaElement<T>::FromFloat(value));
}

// Calls fn with a zero of the device's type for `dtype`.
template <typename Fn>
CudaLaunch WithElementType(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kBFloat16:
      return fn(__nv_bfloat16{});
    case DType::kFloat16:
      return fn(__half{});
    case DType::kFloat32:
      break;
  }
  return fn(float{});
}

// Calls fn with how many elements of a row a thread takes, as std::integral_constant.
template <typename Fn>
CudaLaunch WithVectorElements(bool aligned, const Fn& fn) {
  if (aligned) return fn(std::integral_constant<int, kVectorElements>{});
  return fn(std::integral_constant<int, 1>{});
}

// Blocks of `threads` threads for `rows` rows of `width` elements, N by a thread: x is the row.
inline dim3 RowGrid(int64_t rows, int64_t width, int elements, int threads) {
  const int64_t per_block = int64_t{elements} * threads;
  return dim3(static_cast<unsigned>(rows),
              static_cast<unsigned>((width + per_block - 1) / per_block));
}

// The column of the first of a thread's N elements under RowGrid.
template <int N>
__device__ int64_t RowGridColumn() {
  return (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
}

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_ELEMENTS_CUH_
