// What a span costs the thread that runs steps: a step has up to four, a request two.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "worker/engine/span_ring.h"

namespace muster {
namespace {

void BM_NobodyReads(benchmark::State& state) {
  const RankSpans spans(std::make_shared<SpanRing>(), ReplicaIndex(0), Epoch(1), GlobalRank(0));
  for (auto _ : state) {
    bool on = spans.on();
    benchmark::DoNotOptimize(on);
  }
}
BENCHMARK(BM_NobodyReads);

// With a request id of so many bytes.
void BM_Write(benchmark::State& state) {
  const auto ring = std::make_shared<SpanRing>();
  const SpanReader reader(ring);
  const RankSpans spans(ring, ReplicaIndex(0), Epoch(1), GlobalRank(0));
  const std::string id(static_cast<size_t>(state.range(0)), 'r');
  const absl::Time now = Clock::Real().Now();
  for (auto _ : state) {
    spans.Write({.kind = SpanKind::kRequest,
                 .begin = now,
                 .duration = absl::Microseconds(3),
                 .request_id = id});
  }
}
BENCHMARK(BM_Write)->Arg(0)->Arg(36)->Arg(128);

}  // namespace
}  // namespace muster
