#include "client/ctl/fleet_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/wire_time.h"

namespace muster::ctl {
namespace {

std::unique_ptr<grpc::ClientContext> ContextWithin(absl::Duration timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(DeadlineAfter(timeout));
  return context;
}

// Hands on the operation of every response, and returns how the stream ended.
template <typename Response>
grpc::Status ReadAll(const std::unique_ptr<grpc::ClientReader<Response>>& reader,
                     const FleetClient::UseOperation& use) {
  for (Response response; reader->Read(&response);) use(response.operation());
  return reader->Finish();
}

}  // namespace

FleetClient::FleetClient(CoordinatorAddress coordinator, absl::Duration timeout)
    : coordinator_(std::move(coordinator)),
      timeout_(timeout),
      stub_(v1::Fleet::NewStub(Connect(coordinator_))) {}

absl::StatusOr<v1::GetTopologyResponse> FleetClient::GetTopology() const {
  v1::GetTopologyResponse response;
  const auto status = stub_->GetTopology(Context().get(), v1::GetTopologyRequest(), &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::StatusOr<v1::ListWorkersResponse> FleetClient::ListWorkers() const {
  v1::ListWorkersResponse response;
  const auto status = stub_->ListWorkers(Context().get(), v1::ListWorkersRequest(), &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::StatusOr<v1::PlanTopologyResponse> FleetClient::PlanTopology(
    const v1::PlanTopologyRequest& request) const {
  v1::PlanTopologyResponse response;
  const auto status = stub_->PlanTopology(Context().get(), request, &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::StatusOr<v1::ListOperationsResponse> FleetClient::ListOperations() const {
  v1::ListOperationsResponse response;
  const auto status =
      stub_->ListOperations(Context().get(), v1::ListOperationsRequest(), &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::StatusOr<v1::Operation> FleetClient::CancelOperation(const std::string& id) const {
  v1::CancelOperationRequest request;
  request.set_operation_id(id);
  v1::CancelOperationResponse response;
  const auto status = stub_->CancelOperation(Context().get(), request, &response);
  if (!status.ok()) return Explain(status);
  return response.operation();
}

absl::Status FleetClient::Scale(const v1::ScaleContextParallelRequest& request,
                                grpc::ClientContext& context, const UseOperation& use) const {
  return Explain(ReadAll<v1::ScaleContextParallelResponse>(
      stub_->ScaleContextParallel(&context, request), use));
}

absl::Status FleetClient::Apply(const v1::ApplyTopologyRequest& request,
                                grpc::ClientContext& context, const UseOperation& use) const {
  return Explain(ReadAll<v1::ApplyTopologyResponse>(stub_->ApplyTopology(&context, request), use));
}

absl::Status FleetClient::Drain(const v1::DrainWorkerRequest& request, grpc::ClientContext& context,
                                const UseOperation& use) const {
  return Explain(ReadAll<v1::DrainWorkerResponse>(stub_->DrainWorker(&context, request), use));
}

absl::StatusOr<std::vector<v1::WatchEventsResponse>> FleetClient::Events(uint64_t from) const {
  v1::WatchEventsRequest request;
  request.set_from_sequence(from);
  request.set_no_follow(true);
  const auto context = Context();
  const auto reader = stub_->WatchEvents(context.get(), request);
  std::vector<v1::WatchEventsResponse> events;
  for (v1::WatchEventsResponse event; reader->Read(&event);) events.push_back(event);
  const auto status = reader->Finish();
  if (!status.ok()) return Explain(status);
  return events;
}

absl::Status FleetClient::FollowEvents(
    const std::function<void(const v1::WatchEventsResponse&)>& use) const {
  grpc::ClientContext context;
  const auto reader = stub_->WatchEvents(&context, v1::WatchEventsRequest());
  for (v1::WatchEventsResponse event; reader->Read(&event);) use(event);
  const auto status = reader->Finish();
  if (!status.ok()) return Explain(status);
  return absl::UnavailableError(
      absl::StrCat("the coordinator at ", coordinator_.address, " ended the stream of events"));
}

absl::Status FleetClient::Explain(const grpc::Status& status) const {
  return ExplainFailure(status, coordinator_);
}

std::unique_ptr<grpc::ClientContext> FleetClient::Context() const {
  return ContextWithin(timeout_);
}

InferenceClient::InferenceClient(WorkerAddress leader, absl::Duration timeout)
    : leader_(std::move(leader)),
      timeout_(timeout),
      stub_(v1::Inference::NewStub(Connect(leader_))) {}

absl::StatusOr<v1::GetModelResponse> InferenceClient::GetModel() const {
  v1::GetModelResponse response;
  const auto status = stub_->GetModel(Context().get(), v1::GetModelRequest(), &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::StatusOr<v1::ForwardResponse> InferenceClient::Forward(
    const v1::ForwardRequest& request) const {
  v1::ForwardResponse response;
  const auto status = stub_->Forward(Context().get(), request, &response);
  if (!status.ok()) return Explain(status);
  return response;
}

absl::Status InferenceClient::FreeSequences(const v1::FreeSequencesRequest& request) const {
  v1::FreeSequencesResponse response;
  return Explain(stub_->FreeSequences(Context().get(), request, &response));
}

absl::Status InferenceClient::Explain(const grpc::Status& status) const {
  return ExplainFailure(status, leader_);
}

std::unique_ptr<grpc::ClientContext> InferenceClient::Context() const {
  return ContextWithin(timeout_);
}

absl::StatusOr<v1::MeasureDeviceResponse> MeasureDevice(const WorkerAddress& worker,
                                                        absl::Duration timeout) {
  const auto stub = v1::WorkerControl::NewStub(Connect(worker));
  v1::MeasureDeviceResponse response;
  const auto status = stub->MeasureDevice(ContextWithin(timeout).get(), {}, &response);
  if (!status.ok()) return ExplainFailure(status, worker);
  return response;
}

}  // namespace muster::ctl
