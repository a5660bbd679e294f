#include "client/ctl/trace_collection.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/status_macros.h"
#include "base/wire_time.h"
#include "proto/muster/v1/trace.grpc.pb.h"

namespace muster::ctl {
namespace {

constexpr int kClockReadings = 8;
// For an answer that takes no time, and beyond the time for which spans are collected.
constexpr absl::Duration kPatience = absl::Seconds(5);

void EndWithin(absl::Duration timeout, grpc::ClientContext& context) {
  context.set_deadline(DeadlineAfter(timeout));
}

absl::StatusOr<absl::Time> ReadClock(v1::Trace::Stub& stub, const WorkerAddress& worker) {
  grpc::ClientContext context;
  EndWithin(kPatience, context);
  v1::ReadClockResponse response;
  const grpc::Status status = stub.ReadClock(&context, v1::ReadClockRequest(), &response);
  if (!status.ok()) return ExplainFailure(status, worker);
  return absl::FromUnixSeconds(response.time().seconds()) +
         absl::Nanoseconds(response.time().nanos());
}

}  // namespace

absl::StatusOr<ClockOffset> MeasureClock(const std::function<absl::Time()>& now,
                                         const std::function<absl::StatusOr<absl::Time>()>& read) {
  ClockOffset best;
  for (int i = 0; i < kClockReadings; ++i) {
    const absl::Time asked = now();
    MUSTER_ASSIGN_OR_RETURN(const absl::Time shown, read());
    const absl::Duration round_trip = now() - asked;
    if (round_trip >= best.round_trip) continue;
    best = {.offset = shown - (asked + round_trip / 2), .round_trip = round_trip};
  }
  if (absl::AbsDuration(best.offset) <= best.round_trip / 2) best.offset = absl::ZeroDuration();
  return best;
}

std::vector<absl::StatusOr<WorkerTrace>> TraceCollection::Run(absl::Duration duration) {
  std::vector<absl::StatusOr<WorkerTrace>> traces(workers_.size(),
                                                  absl::UnknownError("not collected"));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers_.size(); ++i) {
    threads.emplace_back([&, i] { traces[i] = Collect(workers_[i], duration); });
  }
  for (std::thread& thread : threads) thread.join();
  return traces;
}

absl::StatusOr<WorkerTrace> TraceCollection::Collect(const WorkerAddress& worker,
                                                     absl::Duration duration) {
  const auto stub = v1::Trace::NewStub(Connect(worker));
  MUSTER_ASSIGN_OR_RETURN(
      const ClockOffset clock,
      MeasureClock([] { return Clock::Real().Now(); }, [&] { return ReadClock(*stub, worker); }));
  WorkerTrace trace{
      .worker_id = worker.worker_id, .clock_offset = clock.offset, .round_trip = clock.round_trip};
  v1::CollectRequest request;
  request.mutable_duration()->set_seconds(
      absl::IDivDuration(duration, absl::Seconds(1), &duration));
  request.mutable_duration()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  grpc::ClientContext context;
  EndWithin(absl::Seconds(request.duration().seconds()) + duration + kPatience, context);
  Begin(context);
  const auto reader = stub->Collect(&context, request);
  for (v1::CollectResponse response; reader->Read(&response);) {
    trace.lost = response.lost();
    for (v1::Span& span : *response.mutable_spans()) trace.spans.push_back(std::move(span));
  }
  const grpc::Status status = reader->Finish();
  const bool stopped = End(context);
  if (!status.ok() && !stopped) return ExplainFailure(status, worker);
  return trace;
}

void TraceCollection::Begin(grpc::ClientContext& call) {
  absl::MutexLock lock(&mu_);
  calls_.push_back(&call);
  if (stopped_) call.TryCancel();
}

bool TraceCollection::End(grpc::ClientContext& call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(std::find(calls_.begin(), calls_.end(), &call));
  return stopped_;
}

void TraceCollection::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

}  // namespace muster::ctl
