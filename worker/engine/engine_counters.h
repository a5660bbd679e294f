#ifndef MUSTER_WORKER_ENGINE_ENGINE_COUNTERS_H_
#define MUSTER_WORKER_ENGINE_ENGINE_COUNTERS_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/metrics/counters.h"
#include "base/takeover.h"
#include "worker/collective/collective_tally.h"

namespace muster {

inline constexpr std::array<int64_t, 12> kRowBounds = {1,  2,   4,   8,   16,   32,
                                                       64, 128, 256, 512, 1024, 2048};

// What the epochs of one worker have done since it started, all together: the threads that run
// steps add to it, and whoever scrapes reads. Nothing here locks or allocates.
struct EngineCounters {
  // Rows that graphs are made for: 1, 2, 4, .. 8,192.
  static constexpr size_t kBucketSizes = 14;

  // Of steps that ran rows, on every rank.
  Counter steps_graph;     // replayed a graph
  Counter steps_eager;     // made their calls one by one
  Counter tokens_prefill;  // rows of sequences that had several in their step
  Counter tokens_decode;   // rows of sequences that had one
  Counter padding_rows;    // computed beside those
  std::array<Counter, kBucketSizes> graph_steps;                // by the rows of the graph
  Histogram<kRowBounds> rows;                                   // of a step, without padding
  DurationHistogram device_time;                                // of a step
  std::array<Counter, CollectiveTally::kOps> collectives;       // by operation
  std::array<Counter, CollectiveTally::kOps> collective_bytes;  // that this rank brought

  // On the leader.
  Counter requests;                // that ran
  DurationHistogram queue_time;    // of a request, until it was begun
  DurationHistogram request_time;  // of a request, from its arrival to its answer
  DurationHistogram relay_time;    // of a step, until followers could read it
  Counter expired_clients;

  // Of resizes, on the leader that took over.
  DurationHistogram resize_pause;
  Counter kv_blocks_moved;
  Counter kv_bytes_moved;
  Counter tokens_rebuilt;
  Counter sequences_dropped;

  // Steps that ended; it stands still while one hangs.
  uint64_t steps() const { return steps_graph.value() + steps_eager.value(); }

  void NoteGraph(int rows_of_graph) {
    steps_graph.Add();
    const auto size = static_cast<size_t>(std::bit_width(static_cast<unsigned>(rows_of_graph))) - 1;
    if (size < kBucketSizes) graph_steps[size].Add();
  }
  void NoteCollectives(const CollectiveTally& tally) {
    for (size_t op = 0; op < CollectiveTally::kOps; ++op) {
      if (tally.operations[op] == 0) continue;
      collectives[op].Add(tally.operations[op]);
      collective_bytes[op].Add(tally.bytes[op]);
    }
  }
  void NoteTakeover(const Takeover& takeover) {
    resize_pause.Observe(takeover.pause);
    kv_blocks_moved.Add(takeover.kv_blocks_moved);
    kv_bytes_moved.Add(takeover.kv_bytes_moved);
    tokens_rebuilt.Add(takeover.tokens_rebuilt);
    sequences_dropped.Add(static_cast<uint64_t>(takeover.sequences_dropped));
  }
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_ENGINE_COUNTERS_H_
