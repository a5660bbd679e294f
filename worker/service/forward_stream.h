// Inference.ForwardStream: many requests on their way, answered in their order.
#ifndef MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_
#define MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include "base/trace_context.h"
#include "proto/muster/v1/inference.pb.h"
#include "worker/engine/worker_epochs.h"
#include "worker/service/client_names.h"

namespace muster {

using ForwardStreamReactor = grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardStreamResponse>;

// Serves one call, whose caller's clients have `names` and whose requests are part of `trace`;
// deletes itself when it is over. `epochs` outlives it.
ForwardStreamReactor* StartForwardStream(const WorkerEpochs& epochs, ClientNames names,
                                         const TraceContext& trace);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_
