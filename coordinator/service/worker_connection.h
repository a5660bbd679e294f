#ifndef MUSTER_COORDINATOR_SERVICE_WORKER_CONNECTION_H_
#define MUSTER_COORDINATOR_SERVICE_WORKER_CONNECTION_H_

#include <memory>
#include <string>

#include "proto/muster/v1/worker_control.grpc.pb.h"

namespace muster {

class TlsCredentials;

// A channel to one worker's process. It shares no TCP connection with any other: a new process at
// the same address starts afresh. Thread-safe.
class WorkerConnection {
 public:
  // `address` is "host:port"; connects when first used, in plaintext without `tls`. With it, the
  // other end must be the worker `worker_id`.
  WorkerConnection(const std::string& address, const std::string& worker_id,
                   const TlsCredentials* tls);

  v1::WorkerControl::StubInterface::async_interface* control() { return stub_->async(); }

 private:
  const std::unique_ptr<v1::WorkerControl::Stub> stub_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_WORKER_CONNECTION_H_
