#include "client/ctl/top_rates.h"

#include <gtest/gtest.h>

namespace muster::ctl {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

v1::ListWorkersResponse Told(uint64_t step, uint64_t tokens, absl::Duration age = {},
                             uint64_t epoch = 1) {
  v1::ListWorkersResponse workers;
  auto& worker = *workers.add_workers();
  worker.set_worker_id("w0");
  worker.set_epoch(epoch);
  worker.set_step(step);
  worker.set_tokens(tokens);
  worker.mutable_heartbeat_age()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(age)));
  return workers;
}

TEST(TopRates, AreWhatCountersGrowBetweenHeartbeats) {
  TopRates rates;
  rates.Add(kStart, Told(100, 1000));
  EXPECT_FALSE(rates.Of(Told(100, 1000).workers(0)).has_value());
  // Told after a second, by a heartbeat of half a second ago.
  const auto later = Told(150, 2000, absl::Milliseconds(500));
  rates.Add(kStart + absl::Seconds(1), later);
  const auto rate = rates.Of(later.workers(0));
  ASSERT_TRUE(rate.has_value());
  EXPECT_DOUBLE_EQ(rate->steps_per_second, 100);
  EXPECT_DOUBLE_EQ(rate->tokens_per_second, 2000);
}

TEST(TopRates, TheSameHeartbeatToldAgainChangesNothing) {
  TopRates rates;
  rates.Add(kStart, Told(100, 1000));
  rates.Add(kStart + absl::Milliseconds(500), Told(100, 1000, absl::Milliseconds(500)));
  EXPECT_FALSE(rates.Of(Told(100, 1000).workers(0)).has_value());
}

TEST(TopRates, ForgetWhatIsLongerAgoThanTheWindow) {
  TopRates rates;
  uint64_t steps = 0;
  for (int second = 0; second < 30; ++second) {
    steps += second < 20 ? 1000 : 10;
    rates.Add(kStart + absl::Seconds(second), Told(steps, 0));
  }
  EXPECT_DOUBLE_EQ(rates.Of(Told(steps, 0).workers(0))->steps_per_second, 10);
}

TEST(TopRates, BeginAnewWithAnEpoch) {
  TopRates rates;
  rates.Add(kStart, Told(100, 0));
  const auto next = Told(3, 0, {}, 2);
  rates.Add(kStart + absl::Seconds(1), next);
  EXPECT_FALSE(rates.Of(next.workers(0)).has_value());
}

}  // namespace
}  // namespace muster::ctl
