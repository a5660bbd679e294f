#include "base/wire_takeover.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

TEST(WireTakeover, ComesBackAsItWas) {
  const Takeover takeover{.pause = absl::Milliseconds(4),
                          .kv_blocks_moved = 21,
                          .kv_blocks_kept = 20,
                          .kv_bytes_moved = 7'741'440,
                          .kv_bytes_in_pause = 368'640,
                          .copy_time = absl::Microseconds(900),
                          .copy_bytes_per_second = 9.5e9,
                          .sequences = 3,
                          .tokens_rebuilt = 7,
                          .sequences_dropped = 1};
  v1::ActivateResult wire;
  ToWire(takeover, &wire);
  const auto back = FromWire(wire);
  ASSERT_OK(back);
  EXPECT_EQ(*back, takeover);
}

TEST(WireTakeover, ASummaryComesBackAsItWas) {
  const CacheSummary summary{.blocks_by_index = {4, 3, 1},
                             .blocks_per_rank = 1456,
                             .block_tokens = 16,
                             .block_bytes = 368'640,
                             .sequences = 4,
                             .tokens = 130,
                             .not_rebuildable = {{"a", "s"}},
                             .not_rebuildable_count = 1,
                             .active_sequences = 2,
                             .copy_bytes_per_second = 9e9,
                             .prefill_tokens_per_second = 800,
                             .round_trip = absl::Microseconds(40)};
  v1::DescribeCacheResponse wire;
  ToWire(summary, &wire);
  const auto back = FromWire(wire);
  ASSERT_OK(back);
  EXPECT_EQ(*back, summary);
}

TEST(WireTakeover, NamesWhatIsBeyondItsLimit) {
  v1::DescribeCacheResponse wire;
  wire.set_block_tokens(5000);
  EXPECT_STATUS(FromWire(wire), absl::StatusCode::kInvalidArgument, "block_tokens is 5000");
  wire.set_block_tokens(16);
  wire.set_copy_bytes_per_second(std::numeric_limits<double>::quiet_NaN());
  EXPECT_STATUS(FromWire(wire), absl::StatusCode::kInvalidArgument, "copy_bytes_per_second");
  v1::ActivateResult result;
  result.set_kv_bytes_moved(~uint64_t{0});
  EXPECT_STATUS(FromWire(result), absl::StatusCode::kInvalidArgument, "kv_bytes_moved");
}

}  // namespace
}  // namespace muster
