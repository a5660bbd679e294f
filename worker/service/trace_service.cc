#include "worker/service/trace_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/wire_status.h"
#include "base/wire_time.h"
#include "proto/muster/v1/trace.grpc.pb.h"
#include "worker/engine/span_ring.h"
#include "worker/service/trace_stream.h"

namespace muster {
namespace {

using grpc::CallbackServerContext;

constexpr absl::Duration kLongest = absl::Minutes(1);
constexpr int kMaxCollectors = 16;

class TraceService final : public v1::Trace::CallbackService {
 public:
  explicit TraceService(std::shared_ptr<SpanRing> spans) : spans_(std::move(spans)) {}

  grpc::ServerUnaryReactor* ReadClock(CallbackServerContext* context, const v1::ReadClockRequest*,
                                      v1::ReadClockResponse* response) override {
    *response->mutable_time() = ToWire(Clock::Real().Now());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  TraceReactor* Collect(CallbackServerContext*, const v1::CollectRequest* request) override {
    const auto duration = TimeoutFromWire(request->duration(), kLongest);
    if (!duration.ok()) return RefuseTraceStream(duration.status());
    // Held by every stream, and here.
    auto place = std::shared_ptr<void>(nullptr, [count = collectors_](void*) { --*count; });
    if (++*collectors_ > kMaxCollectors) {
      return RefuseTraceStream(absl::ResourceExhaustedError(
          absl::StrCat(kMaxCollectors, " callers collect spans already, which is as many as can")));
    }
    return StartTraceStream(spans_, *duration, std::move(place));
  }

 private:
  const std::shared_ptr<SpanRing> spans_;
  const std::shared_ptr<std::atomic<int>> collectors_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace

std::shared_ptr<grpc::Service> MakeTraceService(std::shared_ptr<SpanRing> spans) {
  return std::make_shared<TraceService>(std::move(spans));
}

}  // namespace muster
