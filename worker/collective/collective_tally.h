#ifndef MUSTER_WORKER_COLLECTIVE_COLLECTIVE_TALLY_H_
#define MUSTER_WORKER_COLLECTIVE_COLLECTIVE_TALLY_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "worker/collective/collective_stamp.h"

namespace muster {

// How many collectives were enqueued, and the bytes that this rank brought to them, by operation.
// Groups of one rank exchange nothing and do not count. What a graph replays is enqueued once, when
// it is captured. Of the thread that enqueues.
struct CollectiveTally {
  static constexpr size_t kOps = static_cast<size_t>(CollectiveOp::kCpCombine) + 1;

  void Add(CollectiveOp op, uint64_t bytes_of_op) {
    ++operations[static_cast<size_t>(op)];
    bytes[static_cast<size_t>(op)] += bytes_of_op;
  }

  std::array<uint64_t, kOps> operations{};
  std::array<uint64_t, kOps> bytes{};
};

// What came in between.
inline CollectiveTally operator-(const CollectiveTally& after, const CollectiveTally& before) {
  CollectiveTally difference;
  for (size_t op = 0; op < CollectiveTally::kOps; ++op) {
    difference.operations[op] = after.operations[op] - before.operations[op];
    difference.bytes[op] = after.bytes[op] - before.bytes[op];
  }
  return difference;
}

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_COLLECTIVE_TALLY_H_
