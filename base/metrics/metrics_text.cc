#include "base/metrics/metrics_text.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>

namespace muster {
namespace {

// Divided, so that 50,000 ns is 5e-05 s and not a number beside it.
constexpr double kNanosecondsPerSecond = 1e9;

}  // namespace

void MetricsText::Begin(absl::string_view name, absl::string_view help,
                        prometheus::MetricType type) {
  families_.push_back({.name = std::string(name), .help = std::string(help), .type = type});
}

void MetricsText::Counters(absl::string_view name, absl::string_view help) {
  Begin(name, help, prometheus::MetricType::Counter);
}

void MetricsText::Gauges(absl::string_view name, absl::string_view help) {
  Begin(name, help, prometheus::MetricType::Gauge);
}

void MetricsText::Histograms(absl::string_view name, absl::string_view help) {
  Begin(name, help, prometheus::MetricType::Histogram);
}

prometheus::ClientMetric& MetricsText::Append(const MetricLabels& labels) {
  prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
  for (const auto& [name, value] : labels) metric.label.push_back({name, value});
  return metric;
}

void MetricsText::Add(double value, const MetricLabels& labels) {
  const bool counts = families_.back().type == prometheus::MetricType::Counter;
  prometheus::ClientMetric& metric = Append(labels);
  (counts ? metric.counter.value : metric.gauge.value) = value;
}

void MetricsText::Add(const DurationHistogram& histogram, const MetricLabels& labels) {
  AddHistogram<kDurationBounds>(histogram, kNanosecondsPerSecond, labels);
}

std::string MetricsText::Write() const {
  std::vector<prometheus::MetricFamily> filled;
  std::copy_if(families_.begin(), families_.end(), std::back_inserter(filled),
               [](const prometheus::MetricFamily& family) { return !family.metric.empty(); });
  return prometheus::TextSerializer().Serialize(filled);
}

}  // namespace muster
