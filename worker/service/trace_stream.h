// Trace.Collect: the spans of a worker, as they are written.
#ifndef MUSTER_WORKER_SERVICE_TRACE_STREAM_H_
#define MUSTER_WORKER_SERVICE_TRACE_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/muster/v1/trace.pb.h"
#include "worker/engine/span_ring.h"

namespace muster {

using TraceReactor = grpc::ServerWriteReactor<v1::CollectResponse>;

// Both delete themselves when the call is over. The first lets go of `place` then.
TraceReactor* StartTraceStream(std::shared_ptr<SpanRing> spans, absl::Duration duration,
                               std::shared_ptr<void> place);
TraceReactor* RefuseTraceStream(const absl::Status& status);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_TRACE_STREAM_H_
