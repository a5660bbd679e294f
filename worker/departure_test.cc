#include "worker/departure.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

namespace muster {
namespace {

using Outcome = Departure::Outcome;

bool Nothing() { return true; }
bool Something() { return false; }

class DepartureTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  Departure departure_{clock_};
};

TEST_F(DepartureTest, ThereIsNoHurryUntilItBegins) {
  EXPECT_EQ(departure_.time_left(), std::nullopt);
  departure_.Begin(absl::Seconds(30));
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(departure_.time_left(), absl::Seconds(20));
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(departure_.time_left(), absl::ZeroDuration());
}

TEST_F(DepartureTest, ItWaitsForTheCoordinatorsWord) {
  departure_.OnEnlisted();
  departure_.Begin(absl::Seconds(30));
  std::thread coordinator([&] { departure_.OnMayLeave("its rank moved to w2"); });
  EXPECT_EQ(departure_.Await(Something), Outcome::kReleased);
  EXPECT_EQ(departure_.message(), "its rank moved to w2");
  coordinator.join();
}

TEST_F(DepartureTest, WhoWasNeverTakenInGoesAtOnce) {
  departure_.Begin(absl::Seconds(30));
  EXPECT_EQ(departure_.Await(Nothing), Outcome::kAlone);
}

TEST_F(DepartureTest, ItsTimeIsBounded) {
  departure_.OnEnlisted();
  departure_.Begin(absl::ZeroDuration());
  EXPECT_EQ(departure_.Await(Something), Outcome::kTimeout);
}

TEST_F(DepartureTest, ACoordinatorThatIsGoneIsWaitedForShortly) {
  departure_.OnEnlisted();
  departure_.Begin(absl::Seconds(30));
  departure_.OnParted();
  int asked = 0;
  const auto holds_nothing = [&] {
    if (++asked == 2) clock_.Advance(Departure::kPatience);
    return false;
  };
  EXPECT_EQ(departure_.Await(holds_nothing), Outcome::kAlone);
  EXPECT_EQ(asked, 2);
}

TEST_F(DepartureTest, OneThatComesBackInTimeIsAskedAgain) {
  departure_.OnEnlisted();
  departure_.Begin(absl::Seconds(30));
  departure_.OnParted();
  int asked = 0;
  const auto holds_nothing = [&] {
    ++asked;
    if (asked == 2) departure_.OnEnlisted();
    if (asked == 3) clock_.Advance(Departure::kPatience);
    if (asked == 4) departure_.OnMayLeave("");
    return false;
  };
  EXPECT_EQ(departure_.Await(holds_nothing), Outcome::kReleased);
}

TEST_F(DepartureTest, ACoordinatorThatDoesNotKnowOfLeavingKeepsNobodyWhoHoldsNothing) {
  departure_.OnEnlisted();
  departure_.Begin(absl::Seconds(30));
  const auto holds_nothing = [&] {
    clock_.Advance(Departure::kPatience / 2);
    return true;
  };
  EXPECT_EQ(departure_.Await(holds_nothing), Outcome::kAlone);
}

TEST_F(DepartureTest, AnEndCutsItShort) {
  departure_.OnEnlisted();
  departure_.Begin(absl::Seconds(30));
  std::thread device([&] { departure_.End(); });
  EXPECT_EQ(departure_.Await(Something), Outcome::kCutShort);
  device.join();
}

}  // namespace
}  // namespace muster
