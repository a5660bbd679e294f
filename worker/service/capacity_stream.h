// Inference.WatchCapacity.
#ifndef MUSTER_WORKER_SERVICE_CAPACITY_STREAM_H_
#define MUSTER_WORKER_SERVICE_CAPACITY_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>

#include "proto/muster/v1/inference.pb.h"
#include "worker/engine/held_epoch.h"

namespace muster {

using CapacityReactor = grpc::ServerWriteReactor<v1::WatchCapacityResponse>;

// Serves one call; deletes itself when it is over: at the latest when the epoch takes no steps any
// more. Holds the lease of `client_id`, unless that is empty.
CapacityReactor* StartCapacityStream(std::shared_ptr<const ServingEpoch> serving,
                                     const std::string& client_id);

// Answers nothing but an error.
CapacityReactor* RefuseCapacityStream(const absl::Status& status);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_CAPACITY_STREAM_H_
