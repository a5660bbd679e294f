// Inference.ForwardStream: many requests on their way, answered in their order.
#ifndef MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_
#define MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include "proto/muster/v1/inference.pb.h"
#include "worker/engine/worker_epochs.h"

namespace muster {

using ForwardStreamReactor = grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardStreamResponse>;

// Serves one call; deletes itself when it is over. `epochs` outlives it.
ForwardStreamReactor* StartForwardStream(const WorkerEpochs& epochs);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_FORWARD_STREAM_H_
