#include "client/certs/requested_identity.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster::certs {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(RequestedIdentityTest, EveryRoleHasItsUri) {
  const auto uri = [](const char* role, const std::string& id) {
    const auto identity = RequestedIdentity("muster.local", role, id);
    return identity.ok() ? identity->ToUri() : std::string(identity.status().message());
  };
  EXPECT_EQ(uri("worker", "gpu-0"), "spiffe://muster.local/muster/worker/gpu-0");
  EXPECT_EQ(uri("coordinator", ""), "spiffe://muster.local/muster/coordinator");
  EXPECT_EQ(uri("scheduler", "a"), "spiffe://muster.local/muster/scheduler/a");
  EXPECT_EQ(uri("operator", ""), "spiffe://muster.local/muster/operator");
}

TEST(RequestedIdentityTest, RefusalsSayWhatCanBe) {
  const auto refused = [](const std::string& domain, const char* role, const std::string& id,
                          const char* why) {
    EXPECT_TRUE(testing::HasStatus(RequestedIdentity(domain, role, id).status(), kInvalid, why));
  };
  refused("muster.local", "king", "", "it is worker, coordinator, scheduler or operator");
  refused("muster.local", "worker", "", "for one worker");
  refused("muster.local", "worker", "a/b", "'a/b' is no id");
  refused("muster.local", "worker", "..", "'..' is no id");
  refused("muster.local", "worker", std::string(129, 'a'), "is no id");
  refused("Muster", "operator", "", "'Muster' is no trust domain");
  refused("", "operator", "", "'' is no trust domain");
  refused("a/b", "operator", "", "'a/b' is no trust domain");
}

TEST(RequestedIdentityTest, AnAuthorityIsNamedByItsTrustDomainAlone) {
  EXPECT_EQ(AuthorityUri("a.b"), "spiffe://a.b");
  EXPECT_EQ(ParseAuthorityUri("spiffe://a.b"), "a.b");
  EXPECT_EQ(ParseAuthorityUri("spiffe://a.b/muster/operator"), std::nullopt);
  EXPECT_EQ(ParseAuthorityUri("https://a.b"), std::nullopt);
}

}  // namespace
}  // namespace muster::certs
