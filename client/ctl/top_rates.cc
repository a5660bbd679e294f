#include "client/ctl/top_rates.h"

#include <utility>

#include "base/wire_json.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kWindow = absl::Seconds(5);
// Two tellings of the same heartbeat differ by what the calls took.
constexpr absl::Duration kSameHeartbeat = absl::Milliseconds(20);

}  // namespace

void TopRates::Add(absl::Time now, const v1::ListWorkersResponse& workers) {
  std::map<Key, std::deque<Sample>> samples;
  for (const auto& worker : workers.workers()) {
    const Key key = KeyOf(worker);
    std::deque<Sample>& own = samples[key] = std::move(samples_[key]);
    const Sample sample = {now - absl::Milliseconds(Milliseconds(worker.heartbeat_age())),
                           worker.step(), worker.tokens()};
    if (own.empty() || sample.heartbeat - own.back().heartbeat > kSameHeartbeat) {
      own.push_back(sample);
    }
    // The one before the window stays, so that a slow poll has something to compare with.
    while (own.size() > 2 && sample.heartbeat - own[1].heartbeat > kWindow) own.pop_front();
  }
  samples_ = std::move(samples);
}

std::optional<TopRates::Rate> TopRates::Of(const v1::WorkerStatus& worker) const {
  const auto it = samples_.find(KeyOf(worker));
  if (it == samples_.end() || it->second.size() < 2) return std::nullopt;
  const Sample& first = it->second.front();
  const Sample& last = it->second.back();
  const double seconds = absl::ToDoubleSeconds(last.heartbeat - first.heartbeat);
  const auto per_second = [seconds](uint64_t before, uint64_t after) {
    return after > before ? static_cast<double>(after - before) / seconds : 0;
  };
  return Rate{per_second(first.steps, last.steps), per_second(first.tokens, last.tokens)};
}

}  // namespace muster::ctl
