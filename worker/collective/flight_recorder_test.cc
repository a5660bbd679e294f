#include "worker/collective/flight_recorder.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace muster {
namespace {

CollectiveStamp AllReduce(uint32_t elements) {
  return {.op = CollectiveOp::kAllReduce, .rows = elements, .row_bytes = 4};
}

TEST(FlightRecorderTest, TellsTheLastCollectivesOldestFirst) {
  FlightRecorder recorder;
  EXPECT_EQ(recorder.DebugString(), "");
  recorder.Begin(1, AllReduce(3));
  recorder.End(FlightRecorder::State::kDone);
  recorder.Begin(2, {.op = CollectiveOp::kBarrier});
  EXPECT_EQ(recorder.DebugString(),
            "#1 all-reduce of 3 x 4 bytes float32 done\n"
            "#2 barrier waiting");
  EXPECT_EQ(recorder.DebugString(1), "#2 barrier waiting");
}

TEST(FlightRecorderTest, ForgetsWhatIsOlderThanItsCapacity) {
  FlightRecorder recorder;
  for (uint32_t i = 1; i <= 100; ++i) {
    recorder.Begin(i, AllReduce(i));
    recorder.End(FlightRecorder::State::kDone);
  }
  recorder.End(FlightRecorder::State::kFailed);
  const std::string text = recorder.DebugString();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), FlightRecorder::kCapacity - 1);
  EXPECT_EQ(text.substr(0, 4), "#37 ");
  EXPECT_EQ(text.substr(text.rfind('#')), "#100 all-reduce of 100 x 4 bytes float32 failed");
}

}  // namespace
}  // namespace muster
