#ifndef MUSTER_WORKER_SERVICE_TRACE_PARENT_H_
#define MUSTER_WORKER_SERVICE_TRACE_PARENT_H_

#include "base/trace_context.h"

namespace grpc {
class ServerContextBase;
}  // namespace grpc

namespace muster {

// The trace of a call, by the `traceparent` in its metadata; none where that is malformed, or there
// are several.
TraceContext TraceOf(const grpc::ServerContextBase& context);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_TRACE_PARENT_H_
