#include "worker/service/inference_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>
#include <utility>

#include "base/status_macros.h"
#include "base/wire_status.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "worker/engine/worker_epochs.h"
#include "worker/service/capacity_stream.h"
#include "worker/service/forward_stream.h"
#include "worker/service/given_up.h"
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
                                 {.done =
                                      [reactor, request, response](const ForwardAnswer& it) {
                                        if (it.ok()) ToWire(**it, *request, response);
                                        Finish(reactor, it.status());
                                      },
                                  .still_wanted = [context] { return StillWanted(*context); }});
    return reactor;
  }

  ForwardStreamReactor* ForwardStream(CallbackServerContext*) override {
    return StartForwardStream(epochs_);
  }

  ServerUnaryReactor* ForkSequence(CallbackServerContext* context,
                                   const v1::ForkSequenceRequest* request,
                                   v1::ForkSequenceResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = epochs_.Serving();
    if (!serving.ok()) return Finish(reactor, serving.status());
    (*serving)->engine().Fork(FromWire(*request),
                              [reactor, response](const absl::StatusOr<Forked>& forked) {
                                if (forked.ok()) ToWire(*forked, response);
                                Finish(reactor, forked.status());
                              });
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

  ServerUnaryReactor* GetCapacity(CallbackServerContext* context,
                                  const v1::GetCapacityRequest* request,
                                  v1::GetCapacityResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = ServingFor(request->client_id());
    if (!serving.ok()) return Finish(reactor, serving.status());
    if (!request->client_id().empty()) (*serving)->engine().queue().Renew(request->client_id());
    CapacityToWire(**serving, response->mutable_capacity());
    return Finish(reactor, absl::OkStatus());
  }

  CapacityReactor* WatchCapacity(CallbackServerContext*,
                                 const v1::WatchCapacityRequest* request) override {
    const auto serving = ServingFor(request->client_id());
    return serving.ok() ? StartCapacityStream(*serving, request->client_id())
                        : RefuseCapacityStream(serving.status());
  }

  ServerUnaryReactor* GetModel(CallbackServerContext* context, const v1::GetModelRequest*,
                               v1::GetModelResponse* response) override {
    const auto serving = epochs_.Serving();
    if (serving.ok()) ModelToWire(**serving, response);
    return Finish(context->DefaultReactor(), serving.status());
  }

 private:
  // `client_id` may be empty.
  absl::StatusOr<std::shared_ptr<const ServingEpoch>> ServingFor(
      const std::string& client_id) const {
    if (!client_id.empty()) MUSTER_RETURN_IF_ERROR(CheckId("the client id", client_id));
    return epochs_.Serving();
  }

  const WorkerEpochs& epochs_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeInferenceService(const WorkerEpochs& epochs) {
  return std::make_shared<InferenceService>(epochs);
}

}  // namespace muster
