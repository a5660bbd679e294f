#ifndef MUSTER_KERNELS_KV_DESCRIPTOR_H_
#define MUSTER_KERNELS_KV_DESCRIPTOR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

// Of functions that device code calls too.
#if defined(__CUDACC__)
#define MUSTER_HOST_DEVICE __host__ __device__
#else
#define MUSTER_HOST_DEVICE
#endif

namespace muster {

// The shape of one rank's paged KV cache, fixed before capture. The arena is
//   [num_blocks][layers][2 (k, v)][kv_heads][block_size][head_dim]  in `dtype`,
// so that a block holds all layers and moves between ranks as one run of bytes.
struct KvLayout {
  int32_t layers;
  int32_t kv_heads;    // of this rank
  int32_t block_size;  // tokens per block
  int32_t head_dim;
  DType dtype;
};

// What a captured graph reads at run time, through an address that never changes: graphs are
// captured before the arena exists. The owner fills it in between steps only.
struct KvDescriptor {
  void* base;                   // the arena, or null while there is none
  int64_t num_blocks;           // blocks in the arena
  const int32_t* block_tables;  // [max_sequences, max_local_blocks]: arena block per local index
  int64_t max_local_blocks;     // row stride of block_tables
};

// How the blocks of a sequence are dealt to the ranks of the CP group: block b (= position /
// block_size) lives on cp_rank b % size, at index b / size of its row of that rank's block_tables.
struct KvOwnership {
  int32_t rank;
  int32_t size;
};

enum class KvPart : int32_t { kKey = 0, kValue = 1 };

// Bytes of one element: SizeOf(layout.dtype), for device code too.
MUSTER_HOST_DEVICE constexpr int64_t KvElementBytes(const KvLayout& layout) {
  return layout.dtype == DType::kFloat32 ? 4 : 2;
}

// Bytes of one block, all layers.
MUSTER_HOST_DEVICE constexpr int64_t KvBlockBytes(const KvLayout& layout) {
  return int64_t{2} * layout.layers * layout.kv_heads * layout.block_size * layout.head_dim *
         KvElementBytes(layout);
}

// Offset in bytes from the start of a block to the [block_size, head_dim] page of one head.
MUSTER_HOST_DEVICE constexpr int64_t KvPageOffset(const KvLayout& layout, int32_t layer,
                                                  KvPart part, int32_t kv_head) {
  const int64_t page =
      (int64_t{layer} * 2 + static_cast<int32_t>(part)) * layout.kv_heads + kv_head;
  return page * layout.block_size * layout.head_dim * KvElementBytes(layout);
}

// The first byte of the block at `local_index` of sequence slot `sequence`; null when there is no
// arena or the table's entry is no block of it, in which case kernels neither read nor write.
MUSTER_HOST_DEVICE inline std::byte* KvBlock(const KvDescriptor& kv, const KvLayout& layout,
                                             int32_t sequence, int64_t local_index) {
  if (kv.base == nullptr || local_index >= kv.max_local_blocks) return nullptr;
  const int64_t block = kv.block_tables[sequence * kv.max_local_blocks + local_index];
  if (block < 0 || block >= kv.num_blocks) return nullptr;
  return static_cast<std::byte*>(kv.base) + block * KvBlockBytes(layout);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_KV_DESCRIPTOR_H_
