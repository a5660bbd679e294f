#ifndef MUSTER_WORKER_SERVICE_REQUEST_LOG_H_
#define MUSTER_WORKER_SERVICE_REQUEST_LOG_H_

#include "absl/strings/string_view.h"
#include "base/ids.h"
#include "base/trace_context.h"
#include "worker/engine/request_queue.h"

namespace muster {

// What became of a request, as a line of the log that names it and its epoch: at debug, but a
// warning where it failed after its step had begun. `serving` is the epoch that it came to; 0 for
// none.
void LogAnswer(absl::string_view request_id, const TraceContext& trace, Epoch serving,
               const ForwardAnswer& answer);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_REQUEST_LOG_H_
