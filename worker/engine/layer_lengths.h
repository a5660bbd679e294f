// How far each layer of a sequence is.
#ifndef MUSTER_WORKER_ENGINE_LAYER_LENGTHS_H_
#define MUSTER_WORKER_ENGINE_LAYER_LENGTHS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "worker/model/model.h"

namespace muster {

// Positions that every layer of a sequence has seen: from 0, contiguous, and equal for neighbours
// more often than not.
class LayerLengths {
 public:
  // All layers have seen `length` positions.
  explicit LayerLengths(int layers, int64_t length = 0);

  // Of all layers of a range within the model; none where they differ.
  std::optional<int64_t> Of(LayerRange layers) const;
  void Set(LayerRange layers, int64_t length);

  int64_t shortest() const;
  int64_t longest() const;

 private:
  // Layers from the end of the run before it.
  struct Run {
    int end = 0;
    int64_t length = 0;
  };
  void Append(int end, int64_t length);

  std::vector<Run> runs_;  // neighbours differ in length; at least one
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_LAYER_LENGTHS_H_
