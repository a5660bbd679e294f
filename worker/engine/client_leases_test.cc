#include "worker/engine/client_leases.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

using Names = std::vector<std::string>;

constexpr absl::Duration kLease = absl::Minutes(10);

absl::Time At(int minutes) { return absl::UnixEpoch() + absl::Minutes(minutes); }

// A request that is answered at once.
void Call(ClientLeases& leases, const std::string& client, absl::Time now) {
  leases.Hold(client, now);
  leases.LetGo(client, now);
}

TEST(ClientLeasesTest, ASilentClientExpiresOnce) {
  ClientLeases leases(kLease);
  EXPECT_EQ(leases.next_expiry(), absl::InfiniteFuture());
  leases.Renew("unknown", At(0));
  EXPECT_EQ(leases.next_expiry(), absl::InfiniteFuture());
  Call(leases, "a", At(0));
  Call(leases, "b", At(3));
  EXPECT_EQ(leases.next_expiry(), At(10));
  EXPECT_EQ(leases.TakeExpired(At(9)), Names());
  EXPECT_EQ(leases.TakeExpired(At(10)), Names{"a"});
  EXPECT_EQ(leases.TakeExpired(At(12)), Names());
  EXPECT_EQ(leases.TakeExpired(At(13)), Names{"b"});
  EXPECT_EQ(leases.next_expiry(), absl::InfiniteFuture());
}

TEST(ClientLeasesTest, EveryCallRenews) {
  ClientLeases leases(kLease);
  Call(leases, "a", At(0));
  leases.Renew("a", At(8));
  EXPECT_EQ(leases.TakeExpired(At(10)), Names());
  EXPECT_EQ(leases.next_expiry(), At(18));
  EXPECT_EQ(leases.TakeExpired(At(18)), Names{"a"});
}

TEST(ClientLeasesTest, AHeldLeaseDoesNotEnd) {
  ClientLeases leases(kLease);
  leases.Hold("a", At(0));
  leases.Hold("a", At(1));
  EXPECT_EQ(leases.TakeExpired(At(60)), Names());
  leases.LetGo("a", At(61));
  EXPECT_EQ(leases.TakeExpired(At(120)), Names());
  leases.LetGo("a", At(121));
  EXPECT_EQ(leases.TakeExpired(At(130)), Names());
  EXPECT_EQ(leases.TakeExpired(At(131)), Names{"a"});
}

}  // namespace
}  // namespace muster
