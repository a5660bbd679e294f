#ifndef MUSTER_WORKER_SERVICE_INFERENCE_SERVICE_H_
#define MUSTER_WORKER_SERVICE_INFERENCE_SERVICE_H_

#include <memory>

namespace grpc {
class Service;
}  // namespace grpc

namespace muster {

class WorkerEpochs;

// muster.v1.Inference over the epoch that is led from here. Requests wait in its engine, not on
// threads of gRPC. `epochs` outlives it.
std::shared_ptr<grpc::Service> MakeInferenceService(const WorkerEpochs& epochs);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_INFERENCE_SERVICE_H_
