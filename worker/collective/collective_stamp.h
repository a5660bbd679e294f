#ifndef MUSTER_WORKER_COLLECTIVE_COLLECTIVE_STAMP_H_
#define MUSTER_WORKER_COLLECTIVE_COLLECTIVE_STAMP_H_

#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace muster {

enum class CollectiveOp : uint8_t {
  kNone = 0,
  kBarrier = 1,
  kAllReduce = 2,
  kAllGather = 3,
  kReduceScatter = 4,
  kBroadcast = 5,
  kAllReduceRmsNorm = 6,
  kCpCombine = 7,
};

// "all-reduce", "cp-combine", ...
const char* CollectiveOpName(CollectiveOp op);

// What all ranks of one collective must agree on. It travels beside the arrival of each rank, so
// that ranks which disagree find out instead of waiting for ever.
struct CollectiveStamp {
  CollectiveOp op = CollectiveOp::kNone;
  DType dtype = DType::kFloat32;
  uint16_t root = 0;  // group rank, of a broadcast
  uint32_t rows = 0;  // tokens, or elements of a plain collective
  uint64_t row_bytes = 0;

  // "all-reduce-rms-norm of 4 x 2304 bytes float32".
  std::string DebugString() const;
  friend bool operator==(const CollectiveStamp&, const CollectiveStamp&) = default;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_COLLECTIVE_STAMP_H_
