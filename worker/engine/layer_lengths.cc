#include "worker/engine/layer_lengths.h"

#include <algorithm>
#include <utility>

namespace muster {

LayerLengths::LayerLengths(int layers, int64_t length) : runs_{{layers, length}} {}

std::optional<int64_t> LayerLengths::Of(LayerRange layers) const {
  // The run that holds the first layer must hold the last one.
  const auto run = std::find_if(runs_.begin(), runs_.end() - 1,
                                [&](const Run& it) { return it.end > layers.begin; });
  if (layers.end > run->end) return std::nullopt;
  return run->length;
}

void LayerLengths::Append(int end, int64_t length) {
  if (!runs_.empty() && runs_.back().end >= end) return;
  if (!runs_.empty() && runs_.back().length == length) {
    runs_.back().end = end;
  } else {
    runs_.push_back({end, length});
  }
}

void LayerLengths::Set(LayerRange layers, int64_t length) {
  if (runs_.size() == 1 && layers.begin == 0 && layers.end == runs_[0].end) {
    runs_[0].length = length;
    return;
  }
  const std::vector<Run> before = std::exchange(runs_, {});
  for (const Run& run : before) {
    if (layers.begin > 0) Append(std::min(run.end, layers.begin), run.length);
    if (run.end > layers.begin) Append(std::min(run.end, layers.end), length);
    if (run.end > layers.end) Append(run.end, run.length);
  }
}

int64_t LayerLengths::shortest() const {
  return std::min_element(runs_.begin(), runs_.end(),
                          [](const Run& a, const Run& b) { return a.length < b.length; })
      ->length;
}

int64_t LayerLengths::longest() const {
  return std::max_element(runs_.begin(), runs_.end(),
                          [](const Run& a, const Run& b) { return a.length < b.length; })
      ->length;
}

}  // namespace muster
