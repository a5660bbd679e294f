// What a scrape is answered with: families of metrics, made anew each time from what was counted.
#ifndef MUSTER_BASE_METRICS_METRICS_TEXT_H_
#define MUSTER_BASE_METRICS_METRICS_TEXT_H_

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/metrics/counters.h"

namespace muster {

// Content-Type of MetricsText::Write.
inline constexpr absl::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Metrics in the order in which they are added; those of one name follow each other. Names are by
// Prometheus' conventions: base units, "_total" for what only grows.
class MetricsText {
 public:
  // The family that the following belong to.
  void Counters(absl::string_view name, absl::string_view help);
  void Gauges(absl::string_view name, absl::string_view help);
  void Histograms(absl::string_view name, absl::string_view help);

  void Add(double value, const MetricLabels& labels = {});
  // Seconds, of what was observed in nanoseconds.
  void Add(const DurationHistogram& histogram, const MetricLabels& labels = {});
  template <const auto& kBounds>
  void Add(const Histogram<kBounds>& histogram, const MetricLabels& labels = {}) {
    AddHistogram<kBounds>(histogram, 1, labels);
  }

  // One gauge of one metric.
  void Gauge(absl::string_view name, absl::string_view help, double value) {
    Gauges(name, help);
    Add(value);
  }
  void CounterOf(absl::string_view name, absl::string_view help, double value) {
    Counters(name, help);
    Add(value);
  }
  void HistogramOf(absl::string_view name, absl::string_view help,
                   const DurationHistogram& histogram) {
    Histograms(name, help);
    Add(histogram);
  }

  // In the text exposition format. Families without metrics are left out.
  std::string Write() const;

 private:
  void Begin(absl::string_view name, absl::string_view help, prometheus::MetricType type);
  prometheus::ClientMetric& Append(const MetricLabels& labels);
  template <const auto& kBounds>
  void AddHistogram(const Histogram<kBounds>& histogram, double per_unit,
                    const MetricLabels& labels) {
    auto& to = Append(labels).histogram;
    uint64_t below = 0;
    for (size_t i = 0; i < kBounds.size(); ++i) {
      below += histogram.count(i);
      to.bucket.push_back(
          {.cumulative_count = below, .upper_bound = static_cast<double>(kBounds[i]) / per_unit});
    }
    // What came while this was read is in the next scrape: all parts agree.
    to.sample_count = below + histogram.count(kBounds.size());
    to.sample_sum = static_cast<double>(histogram.sum()) / per_unit;
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace muster

#endif  // MUSTER_BASE_METRICS_METRICS_TEXT_H_
