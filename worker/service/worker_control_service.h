#ifndef MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_
#define MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "worker/device/device_speed.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace muster {

class WorkerEpochs;

using MeasureDevice = std::function<absl::StatusOr<DeviceSpeed>()>;

// muster.v1.WorkerControl over the epochs that this worker holds, which outlive it. An operation
// goes on when the client that asked for it has gone. `measure` measures this worker's device; it
// is called on a thread of its own, one call at a time.
std::shared_ptr<grpc::Service> MakeWorkerControlService(const std::string& worker_id,
                                                        Incarnation incarnation,
                                                        WorkerEpochs& epochs,
                                                        MeasureDevice measure);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_CONTROL_SERVICE_H_
