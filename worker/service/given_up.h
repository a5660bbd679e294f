#ifndef MUSTER_WORKER_SERVICE_GIVEN_UP_H_
#define MUSTER_WORKER_SERVICE_GIVEN_UP_H_

#include <grpcpp/server_context.h>

#include "absl/status/status.h"

namespace muster {

// OK as long as the caller waits; DEADLINE_EXCEEDED or CANCELLED (GIVEN_UP) afterwards. Any thread,
// until the call is finished.
absl::Status StillWanted(const grpc::CallbackServerContext& context);

// CANCELLED: the caller hung up.
absl::Status HungUp();

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_GIVEN_UP_H_
