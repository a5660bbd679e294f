#include "worker/engine/client_leases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kLease = absl::Minutes(10);

absl::Time At(int minutes) { return absl::UnixEpoch() + absl::Minutes(minutes); }

TEST(ClientLeasesTest, ASilentClientExpiresOnce) {
  ClientLeases leases(kLease);
  EXPECT_EQ(leases.next_expiry(), absl::InfiniteFuture());
  leases.Renew("a", At(0));
  leases.Renew("b", At(3));
  EXPECT_EQ(leases.next_expiry(), At(10));
  EXPECT_THAT(leases.TakeExpired(At(9)), IsEmpty());
  EXPECT_THAT(leases.TakeExpired(At(10)), ElementsAre("a"));
  EXPECT_THAT(leases.TakeExpired(At(12)), IsEmpty());
  EXPECT_THAT(leases.TakeExpired(At(13)), ElementsAre("b"));
  EXPECT_EQ(leases.next_expiry(), absl::InfiniteFuture());
}

TEST(ClientLeasesTest, EveryCallRenews) {
  ClientLeases leases(kLease);
  leases.Renew("a", At(0));
  leases.Renew("a", At(8));
  EXPECT_THAT(leases.TakeExpired(At(10)), IsEmpty());
  EXPECT_EQ(leases.next_expiry(), At(18));
  EXPECT_THAT(leases.TakeExpired(At(18)), ElementsAre("a"));
}

TEST(ClientLeasesTest, AHeldLeaseDoesNotEnd) {
  ClientLeases leases(kLease);
  leases.Hold("a", At(0));
  leases.Hold("a", At(1));
  EXPECT_THAT(leases.TakeExpired(At(60)), IsEmpty());
  leases.LetGo("a", At(61));
  EXPECT_THAT(leases.TakeExpired(At(120)), IsEmpty());
  leases.LetGo("a", At(121));
  EXPECT_THAT(leases.TakeExpired(At(130)), IsEmpty());
  EXPECT_THAT(leases.TakeExpired(At(131)), ElementsAre("a"));
}

}  // namespace
}  // namespace muster
