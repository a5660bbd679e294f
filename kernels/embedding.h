#ifndef MUSTER_KERNELS_EMBEDDING_H_
#define MUSTER_KERNELS_EMBEDDING_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// out[t] = table[ids[t] - vocab_begin] as float32 where vocab_begin <= ids[t] < vocab_end, else
// zeros (an id of another shard, or -1 of a padded row): the sum over the shards is the embedding.
struct EmbeddingParams {
  const int32_t* ids;  // [tokens]
  const void* table;   // [vocab_end - vocab_begin, hidden] in `dtype`
  DType dtype;
  int64_t vocab_begin;
  int64_t vocab_end;
  int64_t hidden;
  float* out;  // [tokens, hidden]
};

// Both are exact, so bitwise equal.
void EmbeddingReference(const EmbeddingParams& params, IndexRange rows);
void EmbeddingCpu(const EmbeddingParams& params, IndexRange rows);

}  // namespace muster

#endif  // MUSTER_KERNELS_EMBEDDING_H_
