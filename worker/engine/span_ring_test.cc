#include "worker/engine/span_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace muster {
namespace {

// A span that outlives the reading.
struct Kept {
  Span span;
  std::string request_id;
};

std::vector<Kept> ReadAll(SpanReader& reader) {
  std::vector<Kept> spans;
  reader.Read([&](const Span& span) {
    Kept& kept = spans.emplace_back(Kept{span, std::string(span.request_id)});
    kept.span.request_id = {};
  });
  return spans;
}

std::vector<uint64_t> StepsOf(SpanReader& reader) {
  std::vector<uint64_t> steps;
  reader.Read([&](const Span& span) { steps.push_back(span.step.value()); });
  return steps;
}

Span StepSpan(uint64_t step) { return {.kind = SpanKind::kStep, .step = StepNumber(step)}; }

TEST(SpanRing, IsOnWhileSomebodyReads) {
  const auto ring = std::make_shared<SpanRing>(8);
  EXPECT_FALSE(ring->on());
  {
    const SpanReader first(ring);
    EXPECT_TRUE(ring->on());
    { const SpanReader second(ring); }
    EXPECT_TRUE(ring->on());
  }
  EXPECT_FALSE(ring->on());
}

TEST(SpanRing, HandsOnAllThatASpanSays) {
  const auto ring = std::make_shared<SpanRing>(8);
  SpanReader reader(ring);
  const absl::Time begin = absl::FromUnixNanos(1'800'000'000'123'456'789);
  const TraceContext trace{.trace_high = 0x4bf92f3577b34da6,
                           .trace_low = 0xa3ce929d0e0e4736,
                           .parent_span = 7,
                           .sampled = true};
  const RankSpans rank(ring, ReplicaIndex(1), Epoch(18), GlobalRank(3));
  rank.Write({.kind = SpanKind::kRequest,
              .step = StepNumber(uint64_t{1} << 40),
              .begin = begin,
              .duration = absl::Nanoseconds(2001),
              .request_id = "r-7",
              .trace = trace});
  rank.Write({.kind = SpanKind::kDevice,
              .begin = begin,
              .rows = 5,
              .rows_run = 8,
              .collectives = 61,
              .collective_bytes = uint64_t{1} << 33,
              .collective_wait = absl::Microseconds(3)});
  const std::vector<Kept> spans = ReadAll(reader);
  ASSERT_EQ(spans.size(), 2u);
  const Span& request = spans[0].span;
  EXPECT_EQ(request.kind, SpanKind::kRequest);
  EXPECT_EQ(request.replica, ReplicaIndex(1));
  EXPECT_EQ(request.epoch, Epoch(18));
  EXPECT_EQ(request.rank, GlobalRank(3));
  EXPECT_EQ(request.step, StepNumber(uint64_t{1} << 40));
  EXPECT_EQ(request.begin, begin);
  EXPECT_EQ(request.duration, absl::Nanoseconds(2001));
  EXPECT_EQ(request.trace, trace);
  EXPECT_EQ(spans[0].request_id, "r-7");
  const Span& device = spans[1].span;
  EXPECT_EQ(device.kind, SpanKind::kDevice);
  EXPECT_EQ(device.rows, 5u);
  EXPECT_EQ(device.rows_run, 8u);
  EXPECT_EQ(device.collectives, 61u);
  EXPECT_EQ(device.collective_bytes, uint64_t{1} << 33);
  EXPECT_EQ(device.collective_wait, absl::Microseconds(3));
  EXPECT_FALSE(device.trace.is_set());
  EXPECT_EQ(request.collective_wait, std::nullopt);
  EXPECT_EQ(spans[1].request_id, "");
  EXPECT_EQ(reader.lost(), 0u);
}

TEST(SpanRing, KeepsIdsOfAnyBytesUpToItsLimit) {
  const auto ring = std::make_shared<SpanRing>(8);
  SpanReader reader(ring);
  const std::vector<std::string> ids = {"", std::string("\0\xff\n", 3), std::string(8, 'a'),
                                        std::string(128, 'b'), std::string(129, 'c')};
  for (const std::string& id : ids) ring->Write({.request_id = id});
  const std::vector<Kept> spans = ReadAll(reader);
  ASSERT_EQ(spans.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(spans[i].request_id, ids[i].substr(0, 128));
}

TEST(SpanRing, AReaderSeesWhatIsWrittenWhileItLivesAndEachSpanOnce) {
  const auto ring = std::make_shared<SpanRing>(8);
  ring->Write(StepSpan(1));
  SpanReader reader(ring);
  EXPECT_EQ(StepsOf(reader), std::vector<uint64_t>());
  ring->Write(StepSpan(2));
  ring->Write(StepSpan(3));
  EXPECT_EQ(StepsOf(reader), (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(StepsOf(reader), std::vector<uint64_t>());
}

TEST(SpanRing, KeepsTheNewestOfARoundAndCountsTheOthersAsLost) {
  const auto ring = std::make_shared<SpanRing>(8);
  SpanReader reader(ring);
  for (uint64_t step = 1; step <= 20; ++step) ring->Write(StepSpan(step));
  EXPECT_EQ(StepsOf(reader), (std::vector<uint64_t>{13, 14, 15, 16, 17, 18, 19, 20}));
  EXPECT_EQ(reader.lost(), 12u);
  ring->Write(StepSpan(21));
  EXPECT_EQ(StepsOf(reader), (std::vector<uint64_t>{21}));
  EXPECT_EQ(reader.lost(), 12u);
}

TEST(SpanRing, ReadersDoNotTakeSpansFromEachOther) {
  const auto ring = std::make_shared<SpanRing>(8);
  SpanReader first(ring), second(ring);
  ring->Write(StepSpan(1));
  EXPECT_EQ(StepsOf(first), (std::vector<uint64_t>{1}));
  ring->Write(StepSpan(2));
  EXPECT_EQ(StepsOf(second), (std::vector<uint64_t>{1, 2}));
}

// Writers go round a small ring as fast as they can; every span says the same in all its words.
TEST(SpanRing, ASpanThatIsReadWhileOthersAreWrittenIsWhole) {
  constexpr int kWriters = 3;
  constexpr uint64_t kEach = 20'000;
  const auto ring = std::make_shared<SpanRing>(16);
  SpanReader reader(ring);
  std::atomic<int> running{kWriters};
  std::vector<std::thread> writers;
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t step = writer * kEach + i + 1;
        const std::string id = std::to_string(step);
        ring->Write({.step = StepNumber(step),
                     .begin = absl::FromUnixNanos(static_cast<int64_t>(step)),
                     .collective_bytes = step,
                     .request_id = id,
                     .trace = {.trace_high = step, .trace_low = ~step}});
      }
      --running;
    });
  }
  uint64_t read = 0;
  const auto read_all = [&] {
    reader.Read([&](const Span& span) {
      ++read;
      const uint64_t step = span.step.value();
      ASSERT_GE(step, 1u);
      ASSERT_LE(step, kWriters * kEach);
      ASSERT_EQ(absl::ToUnixNanos(span.begin), static_cast<int64_t>(step));
      ASSERT_EQ(span.collective_bytes, step);
      ASSERT_EQ(span.request_id, std::to_string(step));
      ASSERT_EQ(span.trace.trace_high, step);
      ASSERT_EQ(span.trace.trace_low, ~step);
    });
  };
  while (running > 0) read_all();
  for (std::thread& writer : writers) writer.join();
  // A reader stops once at every span that was given up.
  for (int slot = 0; slot <= 16; ++slot) read_all();
  EXPECT_GT(read, 0u);
  EXPECT_EQ(read + reader.lost(), kWriters * kEach);
}

}  // namespace
}  // namespace muster
