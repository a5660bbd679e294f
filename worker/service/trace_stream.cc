#include "worker/service/trace_stream.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/wire_status.h"
#include "base/wire_time.h"

namespace muster {
namespace {

// Between two messages: a ring holds what a worker writes in many times as long, so that a stream
// that does not get the processor for a while loses nothing. Each message wakes three threads and
// another process, on a host whose processors compute: the longer pause is for when so few spans
// come that it would not bring many.
constexpr absl::Duration kPause = absl::Milliseconds(250);
constexpr absl::Duration kShortPause = absl::Milliseconds(50);
constexpr int kMany = 1024;  // spans of one message, a small part of what the ring keeps

v1::SpanKind KindToWire(SpanKind kind) {
  switch (kind) {
    case SpanKind::kRequest:
      return v1::SPAN_KIND_REQUEST;
    case SpanKind::kQueue:
      return v1::SPAN_KIND_QUEUE;
    case SpanKind::kStep:
      return v1::SPAN_KIND_STEP;
    case SpanKind::kRelay:
      return v1::SPAN_KIND_RELAY;
    case SpanKind::kDevice:
      return v1::SPAN_KIND_DEVICE;
    case SpanKind::kSampling:
      return v1::SPAN_KIND_SAMPLING;
    case SpanKind::kPause:
      return v1::SPAN_KIND_PAUSE;
  }
  return v1::SPAN_KIND_UNSPECIFIED;
}

void SpanToWire(const Span& span, v1::Span* wire) {
  wire->set_kind(KindToWire(span.kind));
  wire->set_replica(static_cast<uint32_t>(span.replica.value()));
  wire->set_epoch(span.epoch.value());
  wire->set_rank(static_cast<uint32_t>(span.rank.value()));
  wire->set_step(span.step.value());
  *wire->mutable_begin() = ToWire(span.begin);
  *wire->mutable_duration() = ToWire(span.duration);
  if (span.kind == SpanKind::kDevice) {
    v1::SpanWork* work = wire->mutable_work();
    work->set_rows(span.rows);
    work->set_rows_run(span.rows_run);
    work->set_collectives(span.collectives);
    work->set_collective_bytes(span.collective_bytes);
    if (span.collective_wait.has_value()) {
      *work->mutable_collective_wait() = ToWire(*span.collective_wait);
    }
  }
  wire->set_request_id(std::string(span.request_id));
  if (!span.trace.is_set()) return;
  wire->set_trace_id(span.trace.trace_id());
  wire->set_parent_span_id(span.trace.parent_span_id());
}

class TraceStream final : public TraceReactor {
 public:
  static TraceStream* Start(std::shared_ptr<SpanRing> spans, absl::Duration duration,
                            std::shared_ptr<void> place) {
    auto stream = std::make_shared<TraceStream>(std::move(spans), duration, std::move(place));
    stream->self_ = stream;
    absl::MutexLock lock(&stream->mu_);
    stream->Write();
    return stream.get();
  }

  TraceStream(std::shared_ptr<SpanRing> spans, absl::Duration duration, std::shared_ptr<void> place)
      : place_(std::move(place)),
        end_(Clock::Real().Now() + duration),
        reader_(std::in_place, std::move(spans)) {}

 private:
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!ok) return End(grpc::Status::CANCELLED);
    const absl::Duration left = end_ - Clock::Real().Now();
    const bool first = pause_ == absl::ZeroDuration();
    const bool few = !first && response_.spans_size() * absl::FDivDuration(kPause, pause_) < kMany;
    pause_ = few ? kPause : kShortPause;
    if (last_) return End(grpc::Status::OK);
    if (ended_) return;
    // The alarm keeps its function for as long as it lives, so that must not keep the stream.
    alarm_.Set(DeadlineAfter(std::clamp(left, absl::ZeroDuration(), pause_)),
               [weak = std::weak_ptr<TraceStream>(self_)](bool) {
                 if (const auto self = weak.lock()) self->OnPauseOver();
               });
  }
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    End(grpc::Status::CANCELLED);
  }
  void OnDone() override { self_.reset(); }

  void OnPauseOver() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    last_ = Clock::Real().Now() >= end_;
    Write();
  }
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_.Clear();
    reader_->Read([this](const Span& span) { SpanToWire(span, response_.add_spans()); });
    response_.set_lost(reader_->lost());
    StartWrite(&response_);
  }
  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(ended_, true)) return;
    reader_.reset();
    Finish(status);
  }

  const std::shared_ptr<void> place_;
  const absl::Time end_;
  std::shared_ptr<TraceStream> self_;  // until OnDone

  absl::Mutex mu_;
  std::optional<SpanReader> reader_ ABSL_GUARDED_BY(mu_);  // none once it has ended
  v1::CollectResponse response_ ABSL_GUARDED_BY(mu_);      // gRPC's until OnWriteDone
  absl::Duration pause_ ABSL_GUARDED_BY(mu_);  // before response_; none before the first
  bool last_ ABSL_GUARDED_BY(mu_) = false;     // response_ is
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Alarm alarm_;
};

class Refusal final : public TraceReactor {
 public:
  explicit Refusal(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

TraceReactor* StartTraceStream(std::shared_ptr<SpanRing> spans, absl::Duration duration,
                               std::shared_ptr<void> place) {
  return TraceStream::Start(std::move(spans), duration, std::move(place));
}

TraceReactor* RefuseTraceStream(const absl::Status& status) { return new Refusal(status); }

}  // namespace muster
