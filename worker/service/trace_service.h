#ifndef MUSTER_WORKER_SERVICE_TRACE_SERVICE_H_
#define MUSTER_WORKER_SERVICE_TRACE_SERVICE_H_

#include <memory>

namespace grpc {
class Service;
}  // namespace grpc

namespace muster {

class SpanRing;

// muster.v1.Trace over what the worker's epochs write into `spans`.
std::shared_ptr<grpc::Service> MakeTraceService(std::shared_ptr<SpanRing> spans);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_TRACE_SERVICE_H_
