#include "client/ctl/trace_collection.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/clock.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kAhead = absl::Seconds(7);

// A clock far away that is `kAhead`, and the way there and back.
class FarClock {
 public:
  struct Way {
    absl::Duration there;
    absl::Duration back;
  };
  explicit FarClock(std::vector<Way> ways) : ways_(std::move(ways)) {}

  absl::StatusOr<ClockOffset> Measure() {
    return MeasureClock([this] { return here_.Now(); },
                        [this]() -> absl::StatusOr<absl::Time> {
                          const Way way = ways_[readings_++ % ways_.size()];
                          here_.Advance(way.there);
                          const absl::Time shown = here_.Now() + kAhead;
                          here_.Advance(way.back);
                          return shown;
                        });
  }

 private:
  FakeClock here_{absl::FromUnixSeconds(1'800'000'000)};
  const std::vector<Way> ways_;
  size_t readings_ = 0;
};

TEST(MeasureClock, FindsWhatAClockIsAheadWhereBothWaysAreAlike) {
  FarClock clock({{absl::Milliseconds(3), absl::Milliseconds(3)}});
  ASSERT_OK_AND_ASSIGN(const ClockOffset measured, clock.Measure());
  EXPECT_EQ(measured.offset, kAhead);
  EXPECT_EQ(measured.round_trip, absl::Milliseconds(6));
}

TEST(MeasureClock, GoesByTheShortestRoundTrip) {
  FarClock clock({{absl::Milliseconds(90), absl::Milliseconds(1)},
                  {absl::Microseconds(40), absl::Microseconds(60)},
                  {absl::Milliseconds(1), absl::Milliseconds(90)}});
  ASSERT_OK_AND_ASSIGN(const ClockOffset measured, clock.Measure());
  EXPECT_EQ(measured.round_trip, absl::Microseconds(100));
  EXPECT_LE(absl::AbsDuration(measured.offset - kAhead), measured.round_trip / 2);
}

TEST(MeasureClock, TakesAnOffsetThatMayBeNoneForNone) {
  FarClock clock({{absl::Seconds(30), absl::Seconds(30)}});
  ASSERT_OK_AND_ASSIGN(const ClockOffset measured, clock.Measure());
  EXPECT_EQ(measured.offset, absl::ZeroDuration());
}

TEST(MeasureClock, FailsWithTheReading) {
  EXPECT_STATUS(
      MeasureClock([] { return absl::UnixEpoch(); },
                   [] { return absl::StatusOr<absl::Time>(absl::UnavailableError("it is gone")); }),
      absl::StatusCode::kUnavailable, "it is gone");
}

}  // namespace
}  // namespace muster::ctl
