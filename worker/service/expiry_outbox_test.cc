#include "worker/service/expiry_outbox.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

TEST(ExpiryOutbox, GivesOutOnceWhatWasPutIn) {
  ExpiryOutbox outbox;
  EXPECT_TRUE(outbox.Take().empty());
  outbox.Put({.client_id = "a"});
  outbox.Put({.client_id = "b"});
  const std::vector<ExpiryReport> taken = outbox.Take();
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].client_id, "a");
  EXPECT_EQ(taken[1].client_id, "b");
  EXPECT_TRUE(outbox.Take().empty());
}

TEST(ExpiryOutbox, ForgetsTheOldestWhereThereAreTooMany) {
  ExpiryOutbox outbox;
  for (int i = 0; i < 100; ++i) outbox.Put({.client_id = absl::StrCat(i)});
  const std::vector<ExpiryReport> taken = outbox.Take();
  ASSERT_EQ(taken.size(), ExpiryOutbox::kMost);
  EXPECT_EQ(taken.front().client_id, "36");
  EXPECT_EQ(taken.back().client_id, "99");
}

}  // namespace
}  // namespace muster
