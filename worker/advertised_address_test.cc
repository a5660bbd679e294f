#include "worker/advertised_address.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(AdvertisedAddress, IsWhatIsListenedOn) {
  EXPECT_EQ(AdvertisedAddress({"127.0.0.1", 4000}, "10.1.2.3:7600"), "127.0.0.1:4000");
  EXPECT_EQ(AdvertisedAddress({"worker-3", 4000}, "10.1.2.3:7600"), "worker-3:4000");
}

TEST(AdvertisedAddress, OfEveryInterfaceIsTheOneTowardsTheCoordinator) {
  EXPECT_EQ(AdvertisedAddress({"0.0.0.0", 4000}, "127.0.0.1:7600"), "127.0.0.1:4000");
  EXPECT_EQ(AdvertisedAddress({"::", 4000}, "127.0.0.1:7600"), "127.0.0.1:4000");
}

TEST(AdvertisedAddress, WithNoWayToTheCoordinatorIsTheMachinesName) {
  const std::string address = AdvertisedAddress({"0.0.0.0", 4000}, "no such host:7600");
  EXPECT_NE(address, "0.0.0.0:4000");
  EXPECT_GT(address.size(), std::string(":4000").size());
}

}  // namespace
}  // namespace muster
