// Rows of activations in words of 16 bytes, the unit in which ranks exchange them.
#ifndef MUSTER_KERNELS_CUDA_WORDS_CUH_
#define MUSTER_KERNELS_CUDA_WORDS_CUH_

#include <cstdint>

#include "kernels/cuda_elements.cuh"

namespace muster {

template <typename T>
inline constexpr int kWordElements = 16 / sizeof(T);

// Words of a row; the last one may be partly used.
constexpr int64_t RowWords(int64_t hidden, size_t element_bytes) {
  return (hidden * static_cast<int64_t>(element_bytes) + 15) / 16;
}

template <typename... Pointers>
bool AreWordsAligned(Pointers... pointers) {
  return (IsVectorAligned(pointers) && ...);
}

template <typename T>
__device__ void UnpackWord(uint4 word, float (&to)[kWordElements<T>]) {
  constexpr int kPerWord = CudaElement<T>::kPerWord;
  CudaElement<T>::Unpack(word.x, to);
  CudaElement<T>::Unpack(word.y, to + kPerWord);
  CudaElement<T>::Unpack(word.z, to + 2 * kPerWord);
  CudaElement<T>::Unpack(word.w, to + 3 * kPerWord);
}

template <typename T>
__device__ uint4 PackWord(const float (&from)[kWordElements<T>]) {
  constexpr int kPerWord = CudaElement<T>::kPerWord;
  return make_uint4(CudaElement<T>::Pack(from), CudaElement<T>::Pack(from + kPerWord),
                    CudaElement<T>::Pack(from + 2 * kPerWord),
                    CudaElement<T>::Pack(from + 3 * kPerWord));
}

// The word at `from`, of which `count` elements are there; zeros for the others. kAligned: all
// are, and it is one access.
template <bool kAligned, typename T>
__device__ uint4 LoadWord(const T* from, int64_t count) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const uint4*>(from);
  } else {
    float values[kWordElements<T>];
#pragma unroll
    for (int i = 0; i < kWordElements<T>; ++i) {
      values[i] = i < count ? CudaElement<T>::ToFloat(from[i]) : 0.0f;
    }
    return PackWord<T>(values);
  }
}

template <bool kAligned, typename T>
__device__ void StoreWord(uint4 word, int64_t count, T* to) {
  if constexpr (kAligned) {
    *reinterpret_cast<uint4*>(to) = word;
  } else {
    float values[kWordElements<T>];
    UnpackWord<T>(word, values);
#pragma unroll
    for (int i = 0; i < kWordElements<T>; ++i) {
      if (i < count) to[i] = CudaElement<T>::FromFloat(values[i]);
    }
  }
}

// The sum of a word over ranks, in their order, and the residual; rounded to T.
template <typename T, int kRanks>
__device__ uint4 SumWord(const uint4 (&words)[kRanks], int world, const uint4* residual) {
  constexpr int kElements = kWordElements<T>;
  float sum[kElements], added[kElements];
  UnpackWord<T>(words[0], sum);
#pragma unroll
  for (int r = 1; r < kRanks; ++r) {
    if (r >= world) break;
    UnpackWord<T>(words[r], added);
#pragma unroll
    for (int i = 0; i < kElements; ++i) sum[i] = __fadd_rn(sum[i], added[i]);
  }
  if (residual != nullptr) {
    UnpackWord<T>(*residual, added);
#pragma unroll
    for (int i = 0; i < kElements; ++i) sum[i] = __fadd_rn(sum[i], added[i]);
  }
  return PackWord<T>(sum);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_CUDA_WORDS_CUH_
