// Asynchronous matrix products of a warpgroup, and what goes with them, of compute capability 9.0
// (PTX ISA, "Asynchronous warpgroup level matrix instructions", "mbarrier").
//
// Matrices of 16-bit elements lie in shared memory in panels of 64 columns: [rows][64] with the
// 128-byte swizzle, each panel aligned to 1,024 bytes.
#ifndef MUSTER_KERNELS_WGMMA_SM90_CUH_
#define MUSTER_KERNELS_WGMMA_SM90_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace muster {

constexpr int kPanelColumns = 64;
constexpr int kPanelRowBytes = kPanelColumns * 2;

// Offset in bytes of eight elements, from column `piece` * 8 on, in panels of `rows` rows.
__device__ inline uint32_t SwizzledOffset(uint32_t rows, uint32_t row, uint32_t piece) {
  const uint32_t panel = piece / 8;
  return (panel * rows + row) * kPanelRowBytes + (piece % 8 ^ row % 8) * 16;
}

// Of the panels from `address` on. Where the product sums over columns, a step of 16 of them is 32
// bytes further and `panel_bytes` does not matter; where it sums over rows, a step is 16 rows.
__device__ inline uint64_t MatrixDescriptor(uint32_t address, uint32_t panel_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kEightRows | (uint64_t{panel_bytes / 16} << 16) | (address & 0x3FFFF) / 16;
}

// Orders what was written to shared memory, and seen so far, before products started later.
__device__ inline void FenceSharedForProducts() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most kPending of the committed groups are not done.
template <int kPending>
__device__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving reads of a product's registers over what stands here.
template <int N>
__device__ void PinRegisters(float (&registers)[N]) {
#pragma unroll
  for (float& value : registers) asm volatile("" : "+f"(value)::"memory");
}
template <int N>
__device__ void PinRegisters(uint32_t (&registers)[N]) {
#pragma unroll
  for (uint32_t& value : registers) asm volatile("" : "+r"(value)::"memory");
}

// Register i of d [64, N], of warp w and lane l of the warpgroup, is row
// 16 w + l / 4 + i / 2 % 2 * 8, column i / 4 * 8 + l % 4 * 2 + i % 2.
#define MUSTER_D8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define MUSTER_D32(i) MUSTER_D8(i), MUSTER_D8(i + 8), MUSTER_D8(i + 16), MUSTER_D8(i + 24)
#define MUSTER_D64(i) MUSTER_D32(i), MUSTER_D32(i + 32)
#define MUSTER_D128(i) MUSTER_D64(i), MUSTER_D64(i + 64)

#define MUSTER_D32_NAMES                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MUSTER_D64_NAMES                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MUSTER_D128_NAMES                                                                        \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define MUSTER_WGMMA_SHARED(n, registers, type, a_name, b_name, add_name)                      \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name                                    \
               ", 0;\n"                                                                        \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type                 \
               " {" MUSTER_D##registers##_NAMES "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n}" \
               : MUSTER_D##registers(0)                                                        \
               : "l"(a), "l"(b), "r"(add ? 1 : 0))

#define MUSTER_WGMMA_REGISTERS(n, registers, type, a_names, b_name)                         \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type              \
               " {" MUSTER_D##registers##_NAMES "}, {" a_names "}, " b_name ", 1, 1, 1, 1;" \
               : MUSTER_D##registers(0)                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

// d [64, N] = a [64, 16] * b [N, 16]^T, or that added to d. T: __nv_bfloat16 or __half.
template <typename T>
__device__ void MultiplyByRows(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    MUSTER_WGMMA_SHARED(64, 32, "bf16", "%32", "%33", "%34");
  } else {
    MUSTER_WGMMA_SHARED(64, 32, "f16", "%32", "%33", "%34");
  }
}
template <typename T>
__device__ void MultiplyByRows(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    MUSTER_WGMMA_SHARED(128, 64, "bf16", "%64", "%65", "%66");
  } else {
    MUSTER_WGMMA_SHARED(128, 64, "f16", "%64", "%65", "%66");
  }
}

// d [64, N] += a [64, 16] * b [16, N]. `a` is in registers, as two blocks of 8 columns of a product
// have them, packed: (row, block 0), (row + 8, block 0), (row, block 1), (row + 8, block 1).
template <typename T>
__device__ void MultiplyAdd(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    MUSTER_WGMMA_REGISTERS(64, 32, "bf16", "%32, %33, %34, %35", "%36");
  } else {
    MUSTER_WGMMA_REGISTERS(64, 32, "f16", "%32, %33, %34, %35", "%36");
  }
}
template <typename T>
__device__ void MultiplyAdd(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    MUSTER_WGMMA_REGISTERS(128, 64, "bf16", "%64, %65, %66, %67", "%68");
  } else {
    MUSTER_WGMMA_REGISTERS(128, 64, "f16", "%64, %65, %66, %67", "%68");
  }
}
template <typename T>
__device__ void MultiplyAdd(float (&d)[128], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    MUSTER_WGMMA_REGISTERS(256, 128, "bf16", "%128, %129, %130, %131", "%132");
  } else {
    MUSTER_WGMMA_REGISTERS(256, 128, "f16", "%128, %129, %130, %131", "%132");
  }
}

#undef MUSTER_WGMMA_SHARED
#undef MUSTER_WGMMA_REGISTERS
#undef MUSTER_D8
#undef MUSTER_D32
#undef MUSTER_D64
#undef MUSTER_D128
#undef MUSTER_D32_NAMES
#undef MUSTER_D64_NAMES
#undef MUSTER_D128_NAMES

// A barrier in shared memory; `phase` is the parity of how often it was completed before.
__device__ inline void InitBarrier(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(barrier)
               : "memory");
}
// When all copies that this thread started are done.
__device__ inline void ArriveAfterCopies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void WaitForBarrier(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\nwait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait;\n}" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

}  // namespace muster

#endif  // MUSTER_KERNELS_WGMMA_SM90_CUH_
