#include "worker/service/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/logging.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr TraceContext kTrace{.trace_high = 0xabc, .trace_low = 1, .parent_span = 2};

std::string Logged(const char* level, const ForwardAnswer& answer, const TraceContext& trace = {},
                   Epoch serving = Epoch(3)) {
  ::testing::internal::CaptureStderr();
  EXPECT_OK(InitLogging({.role = "worker", .level = level}));
  LogAnswer("r-7", trace, serving, answer);
  return ::testing::internal::GetCapturedStderr();
}

ForwardAnswer Answered() {
  return std::make_shared<const ForwardResult>(
      ForwardResult{.epoch = Epoch(4),
                    .step = StepNumber(12),
                    .queue_time = absl::Nanoseconds(1'200'400),
                    .relay_time = absl::Microseconds(3),
                    .device_time = absl::Milliseconds(8)});
}

ForwardAnswer Failed(bool kv_written) {
  return MakeError(absl::StatusCode::kUnavailable, "rank 1 was lost",
                   {.epoch = Epoch(2), .kv_written = kv_written});
}

TEST(RequestLog, AnAnswerIsALineForDebugging) {
  EXPECT_EQ(Logged("info", Answered()), "");
  EXPECT_THAT(Logged("debug", Answered(), kTrace),
              ::testing::HasSubstr("D worker [epoch 4 request r-7 trace "
                                   "0000000000000abc0000000000000001] answered after step 12: "
                                   "queue 1.2ms, relay 3us, device 8ms\n"));
}

TEST(RequestLog, ARefusalIsALineForDebugging) {
  EXPECT_EQ(Logged("info", Failed(false)), "");
  EXPECT_THAT(Logged("debug", Failed(false)),
              ::testing::HasSubstr("D worker [epoch 2 request r-7] refused: rank 1 was lost\n"));
  EXPECT_THAT(Logged("debug", absl::InvalidArgumentError("bad")),
              ::testing::HasSubstr("D worker [epoch 3 request r-7] refused: bad\n"));
  EXPECT_THAT(Logged("debug", absl::UnavailableError("none"), {}, Epoch()),
              ::testing::HasSubstr("D worker [request r-7] refused: none\n"));
}

TEST(RequestLog, AFailureAfterTheStampIsAWarning) {
  EXPECT_THAT(
      Logged("warning", Failed(true)),
      ::testing::HasSubstr("W worker [epoch 2 request r-7] failed after its step had begun: "
                           "rank 1 was lost\n"));
}

}  // namespace
}  // namespace muster
