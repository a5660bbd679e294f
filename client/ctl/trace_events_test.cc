#include "client/ctl/trace_events.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

constexpr int64_t kSecond = 1'800'000'000;

// Begins so many microseconds after kSecond.
v1::Span SpanOf(v1::SpanKind kind, int begin_us, int duration_us, uint64_t step = 1) {
  v1::Span span;
  span.set_kind(kind);
  span.set_epoch(3);
  span.set_step(step);
  span.mutable_begin()->set_seconds(kSecond);
  span.mutable_begin()->set_nanos(begin_us * 1000);
  span.mutable_duration()->set_nanos(duration_us * 1000);
  return span;
}

v1::Span RequestSpan(v1::SpanKind kind, const std::string& id, int begin_us, int duration_us) {
  v1::Span span = SpanOf(kind, begin_us, duration_us);
  span.set_request_id(id);
  return span;
}

WorkerTrace TraceOf(const std::string& worker, uint32_t rank, std::vector<v1::Span> spans) {
  for (v1::Span& span : spans) span.set_rank(rank);
  return {.worker_id = worker, .spans = std::move(spans)};
}

std::vector<Json> EventsOf(const Json& trace, const char* phase) {
  std::vector<Json> events;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == phase) events.push_back(event);
  }
  return events;
}

// "step 1.2 0+80" of every slice: name, process and thread, begin and duration in microseconds.
std::vector<std::string> SlicesOf(const Json& trace) {
  std::vector<std::string> slices;
  for (const Json& event : EventsOf(trace, "X")) {
    slices.push_back(absl::StrCat(event["name"].get<std::string>(), " ", event["pid"].get<int>(),
                                  ".", event["tid"].get<int>(), " ", event["ts"].get<double>(), "+",
                                  event["dur"].get<double>()));
  }
  return slices;
}

using Texts = std::vector<std::string>;

TEST(TraceEvents, OfNothingAreNone) {
  const Json trace = TraceEvents({});
  EXPECT_TRUE(trace["traceEvents"].is_array());
  EXPECT_TRUE(trace["traceEvents"].empty());
  EXPECT_EQ(TraceEvents({TraceOf("w0", 0, {})})["otherData"]["workers"][0]["spans"], 0);
}

TEST(TraceEvents, HaveAProcessForEachRankWithItsThreadsByName) {
  const Json trace =
      TraceEvents({TraceOf("w1", 1, {SpanOf(v1::SPAN_KIND_STEP, 10, 5)}),
                   TraceOf("w0", 0,
                           {SpanOf(v1::SPAN_KIND_STEP, 0, 5), SpanOf(v1::SPAN_KIND_PAUSE, 20, 5, 0),
                            RequestSpan(v1::SPAN_KIND_REQUEST, "r", 0, 20)})});
  Texts names;
  for (const Json& event : EventsOf(trace, "M")) {
    if (!event["args"].contains("name")) continue;
    names.push_back(absl::StrCat(event["pid"].get<int>(), ".", event["tid"].get<int>(), " ",
                                 event["args"]["name"].get<std::string>()));
  }
  EXPECT_EQ(names, (Texts{"1.0 replica 0 rank 0 (w0)", "1.2 steps of epoch 3", "1.1 resizes",
                          "1.4 requests", "2.0 replica 0 rank 1 (w1)", "2.2 steps of epoch 3"}));
}

TEST(TraceEvents, OfAStepNestByWhatContainsWhat) {
  v1::Span device = SpanOf(v1::SPAN_KIND_DEVICE, 10, 70);
  device.mutable_work()->set_rows(3);
  device.mutable_work()->set_rows_run(4);
  device.mutable_work()->set_collectives(61);
  device.mutable_work()->set_collective_bytes(4096);
  device.mutable_work()->mutable_collective_wait()->set_nanos(1500);
  const Json trace = TraceEvents(
      {TraceOf("w0", 0,
               {SpanOf(v1::SPAN_KIND_SAMPLING, 70, 10), device, SpanOf(v1::SPAN_KIND_RELAY, 0, 9),
                SpanOf(v1::SPAN_KIND_STEP, 0, 80)})});
  EXPECT_EQ(SlicesOf(trace), (Texts{"step 1.2 0+80", "relay 1.2 0+9", "61 collectives 1.3 10+70",
                                    "device 1.2 10+70", "sampling 1.2 70+10"}));
  const std::vector<Json> slices = EventsOf(trace, "X");
  EXPECT_EQ(slices[0]["args"], Json({{"epoch", 3}, {"rank", 0}, {"step", 1}}));
  EXPECT_EQ(slices[2]["args"], Json({{"epoch", 3},
                                     {"rank", 0},
                                     {"step", 1},
                                     {"count", 61},
                                     {"bytes", 4096},
                                     {"wait_us", 1.5}}));
  EXPECT_EQ(slices[3]["args"]["rows"], 3);
  EXPECT_EQ(slices[3]["args"]["rows_run"], 4);
}

TEST(TraceEvents, OfRequestsThatOverlapStandOnThreadsOfTheirOwn) {
  const auto request = [](const char* id, int begin, int duration) {
    return RequestSpan(v1::SPAN_KIND_REQUEST, id, begin, duration);
  };
  const auto queue = [](const char* id, int begin, int duration) {
    return RequestSpan(v1::SPAN_KIND_QUEUE, id, begin, duration);
  };
  const Json trace = TraceEvents({TraceOf(
      "w0", 0,
      {request("a", 0, 30), queue("a", 0, 1), request("b", 5, 50), queue("b", 5, 26),
       request("c", 30, 60), queue("c", 30, 26), request("d", 5, 50), queue("d", 5, 26)})});
  EXPECT_EQ(SlicesOf(trace),
            (Texts{"request 1.4 0+30", "queue 1.4 0+1", "request 1.5 5+50", "request 1.6 5+50",
                   "queue 1.5 5+26", "queue 1.6 5+26", "request 1.4 30+60", "queue 1.4 30+26"}));
}

TEST(TraceEvents, OfEpochsThatMeetStandOnThreadsOfTheirOwn) {
  v1::Span late = SpanOf(v1::SPAN_KIND_STEP, 0, 50);
  v1::Span early = SpanOf(v1::SPAN_KIND_STEP, 40, 30);
  early.set_epoch(4);
  const Json trace = TraceEvents({TraceOf("w0", 0, {early, late})});
  EXPECT_EQ(SlicesOf(trace), (Texts{"step 1.2 0+50", "step 1.4 40+30"}));
}

TEST(TraceEvents, OfARequestNameItAndItsTrace) {
  v1::Span span = RequestSpan(v1::SPAN_KIND_REQUEST, "r-7", 0, 5);
  span.set_trace_id("4bf92f3577b34da6a3ce929d0e0e4736");
  span.set_parent_span_id("00f067aa0ba902b7");
  const Json trace = TraceEvents({TraceOf("w0", 0, {span})});
  EXPECT_EQ(EventsOf(trace, "X")[0]["args"], Json({{"epoch", 3},
                                                   {"rank", 0},
                                                   {"step", 1},
                                                   {"request_id", "r-7"},
                                                   {"trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"},
                                                   {"parent_span_id", "00f067aa0ba902b7"}}));
}

TEST(TraceEvents, OfAllWorkersAreOnOneClockFromTheFirstOn) {
  WorkerTrace ahead = TraceOf("w1", 1, {SpanOf(v1::SPAN_KIND_STEP, 5100, 10)});
  ahead.clock_offset = absl::Milliseconds(5);
  const Json trace = TraceEvents({TraceOf("w0", 0, {SpanOf(v1::SPAN_KIND_STEP, 90, 10)}), ahead});
  EXPECT_EQ(SlicesOf(trace), (Texts{"step 1.2 0+10", "step 2.2 10+10"}));
  EXPECT_EQ(trace["otherData"]["begin"], "2027-01-15T08:00:00.000090Z");
  EXPECT_EQ(trace["otherData"]["workers"][1]["clock_offset_us"], 5000.0);
}

TEST(TraceEvents, AreTheSameInWhateverOrderSpansCame) {
  std::vector<v1::Span> spans;
  for (int i = 0; i < 20; ++i) {
    spans.push_back(SpanOf(v1::SPAN_KIND_STEP, 100 * i, 50, static_cast<uint64_t>(i)));
    spans.push_back(RequestSpan(v1::SPAN_KIND_REQUEST, absl::StrCat("r", i), 70 * (i / 2), 90));
    spans.push_back(RequestSpan(v1::SPAN_KIND_QUEUE, absl::StrCat("r", i), 70 * (i / 2), 20));
  }
  std::vector<v1::Span> reversed(spans.rbegin(), spans.rend());
  EXPECT_EQ(TraceEvents({TraceOf("w0", 0, spans), TraceOf("w1", 1, reversed)}).dump(),
            TraceEvents({TraceOf("w1", 1, spans), TraceOf("w0", 0, reversed)}).dump());
}

}  // namespace
}  // namespace muster::ctl
