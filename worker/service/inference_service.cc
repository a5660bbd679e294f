#include "worker/service/inference_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <optional>
#include <utility>

#include "base/wire_status.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "worker/engine/worker_epochs.h"
#include "worker/service/wire_inference.h"

namespace muster {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* Finish(ServerUnaryReactor* reactor, const absl::Status& status) {
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// What the engine is asked to do is answered on its own thread; request and response live until
// then.
class InferenceService final : public v1::Inference::CallbackService {
 public:
  explicit InferenceService(const WorkerEpochs& epochs) : epochs_(epochs) {}

  ServerUnaryReactor* Forward(CallbackServerContext* context, const v1::ForwardRequest* request,
                              v1::ForwardResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = epochs_.Serving();
    if (!serving.ok()) return Finish(reactor, serving.status());
    const BatchLimits& limits = (*serving)->engine().options().limits;
    if (absl::Status status = CheckSlices(*request, limits); !status.ok()) {
      return Finish(reactor, status);
    }
    (*serving)->engine().Forward(FromWire(*request),
                                 {.done = [reactor, request, response](const ForwardAnswer& it) {
                                   if (it.ok()) ToWire(**it, *request, response);
                                   Finish(reactor, it.status());
                                 }});
    return reactor;
  }

  ServerUnaryReactor* FreeSequences(CallbackServerContext* context,
                                    const v1::FreeSequencesRequest* request,
                                    v1::FreeSequencesResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = epochs_.Serving();
    if (!serving.ok()) return Finish(reactor, serving.status());
    auto order = FromWire(*request);
    if (!order.ok()) return Finish(reactor, order.status());
    (*serving)->engine().Free(*std::move(order), [reactor, response](absl::StatusOr<int> freed) {
      if (freed.ok()) response->set_freed(static_cast<uint32_t>(*freed));
      Finish(reactor, freed.status());
    });
    return reactor;
  }

  ServerUnaryReactor* GetCapacity(CallbackServerContext* context, const v1::GetCapacityRequest*,
                                  v1::GetCapacityResponse* response) override {
    const auto serving = epochs_.Serving();
    if (serving.ok()) CapacityToWire(**serving, response->mutable_capacity());
    return Finish(context->DefaultReactor(), serving.status());
  }

  ServerUnaryReactor* GetModel(CallbackServerContext* context, const v1::GetModelRequest*,
                               v1::GetModelResponse* response) override {
    const auto serving = epochs_.Serving();
    if (serving.ok()) ModelToWire(**serving, response);
    return Finish(context->DefaultReactor(), serving.status());
  }

 private:
  const WorkerEpochs& epochs_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeInferenceService(const WorkerEpochs& epochs) {
  return std::make_shared<InferenceService>(epochs);
}

}  // namespace muster
