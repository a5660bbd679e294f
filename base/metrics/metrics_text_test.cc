#include "base/metrics/metrics_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace muster {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::array<int64_t, 3> kRows = {1, 4, 16};

TEST(Histogram, CountsAValueBelowTheFirstBoundThatHoldsIt) {
  Histogram<kRows> histogram;
  for (const int64_t value : {0, 1, 2, 4, 5, 16, 17, 1000}) histogram.Observe(value);
  EXPECT_EQ(histogram.count(0), 2u);
  EXPECT_EQ(histogram.count(1), 2u);
  EXPECT_EQ(histogram.count(2), 2u);
  EXPECT_EQ(histogram.count(3), 2u);
  EXPECT_EQ(histogram.sum(), 1045u);
}

TEST(Histogram, LosesNothingThatSeveralThreadsObserve) {
  Histogram<kRows> histogram;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 10'000; ++k) histogram.Observe(3);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.count(1), 40'000u);
  EXPECT_EQ(histogram.sum(), 120'000u);
}

TEST(MetricsText, WritesTheExpositionFormat) {
  MetricsText text;
  text.Counters("muster_steps_total", "Steps that ran.");
  text.Add(3, {{"mode", "graph"}});
  text.Add(4, {{"mode", "eager"}});
  text.Gauge("muster_epoch", "Its number.", 7);
  EXPECT_EQ(text.Write(),
            "# HELP muster_steps_total Steps that ran.\n"
            "# TYPE muster_steps_total counter\n"
            "muster_steps_total{mode=\"graph\"} 3\n"
            "muster_steps_total{mode=\"eager\"} 4\n"
            "# HELP muster_epoch Its number.\n"
            "# TYPE muster_epoch gauge\n"
            "muster_epoch 7\n");
}

TEST(MetricsText, WritesDurationsInSecondsAndBucketsThatIncludeThoseBelow) {
  DurationHistogram histogram;
  histogram.Observe(absl::Microseconds(40));
  histogram.Observe(absl::Milliseconds(2));
  histogram.Observe(absl::Minutes(1));
  MetricsText text;
  text.HistogramOf("muster_step_seconds", "Time.", histogram);
  const std::string written = text.Write();
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_bucket{le=\"5e-05\"} 1\n"));
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_bucket{le=\"0.0025\"} 2\n"));
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_bucket{le=\"30\"} 2\n"));
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_bucket{le=\"+Inf\"} 3\n"));
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_count 3\n"));
  EXPECT_THAT(written, HasSubstr("muster_step_seconds_sum 60.00204\n"));
}

TEST(MetricsText, KeepsWhatALabelHoldsOnItsLine) {
  MetricsText text;
  text.Gauges("muster_worker", "One.");
  text.Add(1, {{"worker", "a\"b\\c\nd"}});
  EXPECT_THAT(text.Write(), HasSubstr("muster_worker{worker=\"a\\\"b\\\\c\\nd\"} 1\n"));
}

TEST(MetricsText, LeavesOutAFamilyWithoutMetrics) {
  MetricsText text;
  text.Gauges("muster_nothing", "Nothing.");
  EXPECT_THAT(text.Write(), Not(HasSubstr("muster_nothing")));
}

}  // namespace
}  // namespace muster
