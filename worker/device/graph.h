#ifndef MUSTER_WORKER_DEVICE_GRAPH_H_
#define MUSTER_WORKER_DEVICE_GRAPH_H_

#include <cstddef>

#include "absl/status/status.h"
#include "worker/device/stream.h"

namespace muster {

// Work that was captured once over fixed addresses and is replayed. Replay
// allocates nothing.
class Graph {
 public:
  virtual ~Graph() = default;

  // Enqueues the whole graph.
  virtual absl::Status Launch(Stream& stream) = 0;
  // Memory that the graph itself holds.
  virtual size_t bytes() const = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_GRAPH_H_
