#include "worker/device/buffer.h"

#include <gtest/gtest.h>

#include <utility>

namespace muster {
namespace {

TEST(BufferTest, ChargesTheLedgerWhileItLivesAndFreesOnce) {
  Ledger ledger;
  int freed = 0;
  char memory[8];
  {
    Buffer buffer(memory, 8, "kv", ledger, [&](void* data, size_t bytes) {
      EXPECT_EQ(data, memory);
      EXPECT_EQ(bytes, 8u);
      ++freed;
    });
    EXPECT_EQ(buffer.as<char>(), memory);
    EXPECT_EQ(ledger.total(), 8u);
  }
  EXPECT_EQ(ledger.total(), 0u);
  EXPECT_EQ(freed, 1);
}

TEST(BufferTest, MovesItsChargeWithTheMemory) {
  Ledger ledger;
  int freed = 0;
  char memory[8];
  Buffer outer;
  {
    Buffer inner(memory, 8, "kv", ledger, [&](void*, size_t) { ++freed; });
    outer = std::move(inner);
  }
  EXPECT_EQ(freed, 0);
  EXPECT_EQ(outer.size(), 8u);
  EXPECT_EQ(ledger.total(), 8u);
  outer = Buffer();
  EXPECT_EQ(freed, 1);
  EXPECT_EQ(ledger.total(), 0u);
}

TEST(BufferTest, IsEmptyByDefault) {
  Buffer buffer;
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size(), 0u);
}

}  // namespace
}  // namespace muster
