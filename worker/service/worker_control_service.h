#ifndef MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_
#define MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_

#include <memory>
#include <string>

#include "base/ids.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace muster {

class WorkerEpochs;

// muster.v1.WorkerControl over the epochs that this worker holds, which outlive it. An operation
// goes on when the client that asked for it has gone.
std::shared_ptr<grpc::Service> MakeWorkerControlService(const std::string& worker_id,
                                                        Incarnation incarnation,
                                                        WorkerEpochs& epochs);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_
