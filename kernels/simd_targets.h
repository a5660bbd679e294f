#ifndef MUSTER_KERNELS_SIMD_TARGETS_H_
#define MUSTER_KERNELS_SIMD_TARGETS_H_

// Included before any Highway header by the files that use it: which instruction sets kernels are
// compiled for. One for AVX-512, one for AVX2 and the plain fallback; more would cost compile time
// on machines that nobody serves from.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)

#endif  // MUSTER_KERNELS_SIMD_TARGETS_H_
