#include "worker/device/ledger.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>
#include <vector>

namespace muster {
namespace {

TEST(LedgerTest, AddsUpByTagAndInTotal) {
  Ledger ledger;
  ledger.Charge("weights", 100);
  ledger.Charge("kv", 7);
  ledger.Charge("weights", 20);
  EXPECT_EQ(ledger.Entries(), (std::vector<LedgerEntry>{{"kv", 7}, {"weights", 120}}));
  EXPECT_EQ(ledger.total(), 127u);
}

TEST(LedgerTest, ForgetsATagThatHoldsNothing) {
  Ledger ledger;
  ledger.Charge("weights", 100);
  ledger.Discharge("weights", 60);
  EXPECT_EQ(ledger.total(), 40u);
  ledger.Discharge("weights", 40);
  EXPECT_TRUE(ledger.Entries().empty());
}

TEST(LedgerTest, AChargeStandsWhileItsOwnerLives) {
  Ledger ledger;
  LedgerCharge outer;
  {
    LedgerCharge charge(ledger, "weights", 30);
    EXPECT_EQ(ledger.total(), 30u);
    outer = std::move(charge);
  }
  EXPECT_EQ(ledger.Entries(), (std::vector<LedgerEntry>{{"weights", 30}}));
  EXPECT_EQ(outer.bytes(), 30u);
  outer = LedgerCharge();
  EXPECT_EQ(ledger.total(), 0u);
}

TEST(LedgerTest, CountsChargesOfManyThreads) {
  Ledger ledger;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger] {
      for (int i = 0; i < 1000; ++i) ledger.Charge("kv", 3);
      for (int i = 0; i < 1000; ++i) ledger.Discharge("kv", 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.total(), 4000u);
}

}  // namespace
}  // namespace muster
