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
#include "worker/service/client_names.h"
#include "worker/service/forward_stream.h"
#include "worker/service/given_up.h"
#include "worker/service/request_log.h"
#include "worker/service/trace_parent.h"
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
    auto client = ClientNames(*context).Of(request->client_id());
    if (!client.ok()) return Finish(reactor, client.status());
    ForwardBatch batch = FromWire(*request, *std::move(client));
    const auto trace = batch.trace = TraceOf(*context);
    auto done = [reactor, request, response, trace,
                 epoch = (*serving)->epoch](const ForwardAnswer& it) {
      LogAnswer(request->request_id(), trace, epoch, it);
      if (it.ok()) ToWire(**it, *request, response);
      Finish(reactor, it.status());
    };
    (*serving)->engine().Forward(
        std::move(batch),
        {.done = std::move(done), .still_wanted = [context] { return StillWanted(*context); }});
    return reactor;
  }

  ForwardStreamReactor* ForwardStream(CallbackServerContext* context) override {
    return StartForwardStream(epochs_, ClientNames(*context), TraceOf(*context));
  }

  ServerUnaryReactor* ForkSequence(CallbackServerContext* context,
                                   const v1::ForkSequenceRequest* request,
                                   v1::ForkSequenceResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = epochs_.Serving();
    if (!serving.ok()) return Finish(reactor, serving.status());
    auto client = ClientNames(*context).Of(request->client_id());
    if (!client.ok()) return Finish(reactor, client.status());
    (*serving)->engine().Fork(FromWire(*request, *std::move(client)),
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
    auto client = ClientNames(*context).Of(request->client_id());
    if (!client.ok()) return Finish(reactor, client.status());
    auto order = FromWire(*request, *std::move(client));
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
    const auto watched = Watched(*context, request->client_id());
    if (!watched.ok()) return Finish(reactor, watched.status());
    const auto& [serving, client] = *watched;
    if (!client.empty()) serving->engine().queue().Renew(client);
    CapacityToWire(*serving, response->mutable_capacity());
    return Finish(reactor, absl::OkStatus());
  }

  CapacityReactor* WatchCapacity(CallbackServerContext* context,
                                 const v1::WatchCapacityRequest* request) override {
    const auto watched = Watched(*context, request->client_id());
    return watched.ok() ? StartCapacityStream(watched->serving, watched->client)
                        : RefuseCapacityStream(watched.status());
  }

  ServerUnaryReactor* GetModel(CallbackServerContext* context, const v1::GetModelRequest*,
                               v1::GetModelResponse* response) override {
    const auto serving = epochs_.Serving();
    if (serving.ok()) ModelToWire(**serving, response);
    return Finish(context->DefaultReactor(), serving.status());
  }

 private:
  struct WatchedEpoch {
    std::shared_ptr<const ServingEpoch> serving;
    std::string client;  // in the engine; may be empty
  };
  absl::StatusOr<WatchedEpoch> Watched(const CallbackServerContext& context,
                                       const std::string& client_id) const {
    if (!client_id.empty()) MUSTER_RETURN_IF_ERROR(CheckId("the client id", client_id));
    MUSTER_ASSIGN_OR_RETURN(std::string client, ClientNames(context).Of(client_id));
    MUSTER_ASSIGN_OR_RETURN(auto serving, epochs_.Serving());
    return WatchedEpoch{.serving = std::move(serving), .client = std::move(client)};
  }

  const WorkerEpochs& epochs_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeInferenceService(const WorkerEpochs& epochs) {
  return std::make_shared<InferenceService>(epochs);
}

}  // namespace muster
