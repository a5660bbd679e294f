#ifndef MUSTER_KERNELS_EMBEDDING_H_
#define MUSTER_KERNELS_EMBEDDING_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// out[t] = table[ids[t] - vocab_begin] where vocab_begin <= ids[t] < vocab_end, else
// zeros (an id of another shard, or -1 of a padded row): the sum over the shards is the embedding.
struct EmbeddingParams {
  const int32_t* ids;  // [tokens]
  const void* table;   // [vocab_end - vocab_begin, hidden] in `dtype`
  DType dtype;
  int64_t vocab_begin;
  int64_t vocab_end;
  int64_t hidden;
  void* out;                           // [tokens, hidden] in `activation`
  DType activation = DType::kFloat32;  // on the CPU always
};

// All round once, so they are bitwise equal (a NaN stays one).
void EmbeddingReference(const EmbeddingParams& params, IndexRange rows);
void EmbeddingCpu(const EmbeddingParams& params, IndexRange rows);
CudaLaunch EmbeddingCuda(const EmbeddingParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_EMBEDDING_H_
