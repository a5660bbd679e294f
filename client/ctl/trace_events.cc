#include "client/ctl/trace_events.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

// Slices of one thread must not overlap but within each other. So requests have as many threads as
// run beside each other, and every epoch has its own, as in the worker: one may begin while another
// is at the end of its last step. kResizes, then two for each epoch, then those of requests.
constexpr int kResizes = 1;
constexpr int kFirstOfEpochs = 2;
constexpr int kPerEpoch = 2;

// Who has a rank: a row of its own.
struct Row {
  uint32_t replica = 0;
  uint32_t rank = 0;
  std::string worker_id;

  friend auto operator<=>(const Row&, const Row&) = default;
};

// A span on this host's clock.
struct Slice {
  const v1::Span* span = nullptr;
  int64_t begin_ns = 0;  // since 1970
  int64_t end_ns = 0;
};

int64_t Nanoseconds(const google::protobuf::Duration& wire) {
  return wire.seconds() * 1'000'000'000 + wire.nanos();
}

bool IsOfRequest(const v1::Span& span) {
  return span.kind() == v1::SPAN_KIND_REQUEST || span.kind() == v1::SPAN_KIND_QUEUE;
}

const char* NameOf(v1::SpanKind kind) {
  switch (kind) {
    case v1::SPAN_KIND_REQUEST:
      return "request";
    case v1::SPAN_KIND_QUEUE:
      return "queue";
    case v1::SPAN_KIND_STEP:
      return "step";
    case v1::SPAN_KIND_RELAY:
      return "relay";
    case v1::SPAN_KIND_DEVICE:
      return "device";
    case v1::SPAN_KIND_SAMPLING:
      return "sampling";
    case v1::SPAN_KIND_PAUSE:
      return "pause";
    default:
      return "unknown";
  }
}

// Microseconds since `base_ns`, as the format has them.
double Microseconds(int64_t ns) { return static_cast<double>(ns) / 1000; }

// In the order in which slices of one thread nest: what contains others comes first.
bool ComesFirst(const Slice& left, const Slice& right) {
  const auto key = [](const Slice& it) {
    return std::tuple(it.begin_ns, -it.end_ns, it.span->epoch(), it.span->step(), it.span->kind(),
                      it.span->request_id());
  };
  return key(left) < key(right);
}

// Whether `queue` is that of `request`.
bool Contains(const Slice& request, const Slice& queue) {
  return request.span->kind() == v1::SPAN_KIND_REQUEST &&
         queue.span->kind() == v1::SPAN_KIND_QUEUE && request.begin_ns == queue.begin_ns &&
         request.end_ns >= queue.end_ns && request.span->request_id() == queue.span->request_id() &&
         request.span->step() == queue.span->step();
}

Json ArgumentsOf(const v1::Span& span) {
  Json args = {{"epoch", span.epoch()}, {"rank", span.rank()}};
  if (span.step() != 0) args["step"] = span.step();
  if (!IsOfRequest(span)) return args;
  args["request_id"] = span.request_id();
  if (!span.trace_id().empty()) {
    args["trace_id"] = span.trace_id();
    args["parent_span_id"] = span.parent_span_id();
  }
  return args;
}

// Events of one process.
class RowEvents {
 public:
  // Times count from `base_ns`.
  RowEvents(const Row& row, int process, int64_t base_ns, Json& events)
      : process_(process), base_ns_(base_ns), events_(events) {
    Name("process_name", 0,
         absl::StrCat("replica ", row.replica, " rank ", row.rank, " (", row.worker_id, ")"));
    events_.push_back({{"ph", "M"},
                       {"name", "process_sort_index"},
                       {"pid", process_},
                       {"tid", 0},
                       {"args", {{"sort_index", process_}}}});
  }

  void Add(std::vector<Slice> slices) {
    std::sort(slices.begin(), slices.end(), ComesFirst);
    for (const Slice& slice : slices) epochs_.insert(slice.span->epoch());
    for (const Slice& slice : slices) {
      if (!IsOfRequest(*slice.span)) AddOfStep(slice);
    }
    for (const Slice& slice : slices) {
      if (IsOfRequest(*slice.span)) AddOfRequest(slice);
    }
  }

 private:
  void AddOfStep(const Slice& slice) {
    const v1::Span& span = *slice.span;
    Json args = ArgumentsOf(span);
    if (span.kind() == v1::SPAN_KIND_PAUSE) return Complete(kResizes, slice, "pause", args);
    if (span.has_work()) {
      AddCollectives(slice, args);
      args["rows"] = span.work().rows();
      args["rows_run"] = span.work().rows_run();
    }
    Complete(StepsOf(span.epoch()), slice, NameOf(span.kind()), args);
  }

  // Where in a step its collectives lie is not known: they share its time on the device.
  void AddCollectives(const Slice& slice, Json args) {
    const v1::SpanWork& work = slice.span->work();
    if (work.collectives() == 0) return;
    args["count"] = work.collectives();
    args["bytes"] = work.collective_bytes();
    if (work.has_collective_wait()) {
      args["wait_us"] = Microseconds(Nanoseconds(work.collective_wait()));
    }
    Complete(StepsOf(slice.span->epoch()) + 1, slice,
             absl::StrCat(work.collectives(), " collectives"), args);
  }

  // On the first thread where the last request is over; or where this is the queue of that one.
  void AddOfRequest(const Slice& slice) {
    const auto takes = [&slice](const Slice& last) {
      return last.end_ns <= slice.begin_ns || Contains(last, slice);
    };
    const auto lane = std::find_if(lanes_.begin(), lanes_.end(), takes);
    const int thread = FirstOfRequests() + static_cast<int>(lane - lanes_.begin());
    if (lane == lanes_.end()) {
      lanes_.push_back(slice);
    } else if (!Contains(*lane, slice)) {
      *lane = slice;
    }
    Complete(thread, slice, NameOf(slice.span->kind()), ArgumentsOf(*slice.span));
  }

  void Complete(int thread, const Slice& slice, const std::string& name, const Json& args) {
    if (named_.insert(thread).second) NameThread(thread);
    events_.push_back({{"ph", "X"},
                       {"name", name},
                       {"cat", IsOfRequest(*slice.span) ? "request" : "step"},
                       {"pid", process_},
                       {"tid", thread},
                       {"ts", Microseconds(slice.begin_ns - base_ns_)},
                       {"dur", Microseconds(slice.end_ns - slice.begin_ns)},
                       {"args", args}});
  }

  int StepsOf(uint64_t epoch) const {
    const auto index = std::distance(epochs_.begin(), epochs_.find(epoch));
    return kFirstOfEpochs + kPerEpoch * static_cast<int>(index);
  }
  int FirstOfRequests() const {
    return kFirstOfEpochs + kPerEpoch * static_cast<int>(epochs_.size());
  }

  std::string ThreadName(int thread) const {
    if (thread == kResizes) return "resizes";
    if (thread == FirstOfRequests()) return "requests";
    if (thread > FirstOfRequests()) {
      return absl::StrCat("requests ", thread - FirstOfRequests() + 1);
    }
    const int index = (thread - kFirstOfEpochs) / kPerEpoch;
    const bool steps = (thread - kFirstOfEpochs) % kPerEpoch == 0;
    return absl::StrCat(steps ? "steps" : "collectives", " of epoch ",
                        *std::next(epochs_.begin(), index));
  }

  void NameThread(int thread) {
    Name("thread_name", thread, ThreadName(thread));
    events_.push_back({{"ph", "M"},
                       {"name", "thread_sort_index"},
                       {"pid", process_},
                       {"tid", thread},
                       {"args", {{"sort_index", thread}}}});
  }

  void Name(const char* what, int thread, const std::string& name) {
    events_.push_back({{"ph", "M"},
                       {"name", what},
                       {"pid", process_},
                       {"tid", thread},
                       {"args", {{"name", name}}}});
  }

  const int process_;
  const int64_t base_ns_;
  Json& events_;
  std::set<uint64_t> epochs_;
  std::set<int> named_;       // threads
  std::vector<Slice> lanes_;  // the last request of each of their threads
};

Slice OnThisClock(const v1::Span& span, absl::Duration clock_offset) {
  const int64_t begin_ns = span.begin().seconds() * 1'000'000'000 + span.begin().nanos() -
                           absl::ToInt64Nanoseconds(clock_offset);
  return {.span = &span,
          .begin_ns = begin_ns,
          .end_ns = begin_ns + std::max<int64_t>(Nanoseconds(span.duration()), 0)};
}

Json ClockJson(const WorkerTrace& trace) {
  return {{"worker_id", trace.worker_id},
          {"clock_offset_us", absl::ToDoubleMicroseconds(trace.clock_offset)},
          {"round_trip_us", absl::ToDoubleMicroseconds(trace.round_trip)},
          {"spans", trace.spans.size()},
          {"lost", trace.lost}};
}

}  // namespace

Json TraceEvents(const std::vector<WorkerTrace>& traces) {
  std::map<Row, std::vector<Slice>> rows;
  std::map<std::string, Json> workers;
  int64_t base_ns = std::numeric_limits<int64_t>::max();
  for (const WorkerTrace& trace : traces) {
    workers[trace.worker_id] = ClockJson(trace);
    for (const v1::Span& span : trace.spans) {
      const Slice slice = OnThisClock(span, trace.clock_offset);
      base_ns = std::min(base_ns, slice.begin_ns);
      rows[{span.replica(), span.rank(), trace.worker_id}].push_back(slice);
    }
  }
  Json events = Json::array();
  int process = 0;
  for (auto& [row, slices] : rows) RowEvents(row, ++process, base_ns, events).Add(slices);
  Json about = {{"producer", "muster"}, {"workers", Json::array()}};
  if (!rows.empty()) {
    about["begin"] =
        absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromUnixNanos(base_ns), absl::UTCTimeZone());
  }
  for (auto& [id, json] : workers) about["workers"].push_back(std::move(json));
  return {{"displayTimeUnit", "ms"},
          {"otherData", std::move(about)},
          {"traceEvents", std::move(events)}};
}

}  // namespace muster::ctl
