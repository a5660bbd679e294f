// What a scheduler and a coordinator get from a worker, over a real connection.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "proto/google/rpc/status.pb.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"
#include "worker/service/inference_service.h"
#include "worker/service/worker_control_service.h"
#include "worker/service/worker_server.h"

namespace muster {
namespace {

using testing::kTestTerm;
using testing::LocalRendezvousBoard;
using testing::TestWorker;
using testing::TopologyOf;

constexpr Epoch kFirst{1};
constexpr ParallelConfig kTwo{.cp = 2};
constexpr uint32_t kVocabulary = 101;

// A worker with a port, and stubs for it.
struct ServingWorker {
  ServingWorker(int rank, LocalRendezvousBoard& board, const ModelSource& model)
      : worker(rank, board, model) {
    auto started = WorkerServer::Start(
        {.host = "127.0.0.1"},
        {MakeInferenceService(worker.epochs()),
         MakeWorkerControlService(absl::StrCat("w", rank),
                                  Incarnation(static_cast<uint64_t>(100 + rank)), worker.epochs(),
                                  [this] { return measure(); })});
    EXPECT_OK(started);
    server = *std::move(started);
    const auto channel =
        grpc::CreateChannel(server->address().ToString(), grpc::InsecureChannelCredentials());
    inference = v1::Inference::NewStub(channel);
    control = v1::WorkerControl::NewStub(channel);
  }
  ~ServingWorker() { worker.epochs().Close(absl::UnavailableError("the test ends")); }

  TestWorker worker;
  // Set it before the call.
  MeasureDevice measure = [] { return DeviceSpeed{}; };
  std::unique_ptr<WorkerServer> server;
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::WorkerControl::Stub> control;
};

template <typename Request>
Request ControlOf(const std::string& request_id) {
  Request request;
  request.mutable_header()->set_request_id(request_id);
  request.mutable_header()->set_term(kTestTerm.value());
  request.mutable_header()->set_epoch(kFirst.value());
  return request;
}

template <typename Request>
Request WaitingControlOf(const std::string& request_id) {
  auto request = ControlOf<Request>(request_id);
  request.mutable_timeout()->set_seconds(30);
  return request;
}

v1::ForwardRequest ForwardOf(const std::vector<int>& tokens, int position) {
  v1::ForwardRequest request;
  request.set_client_id("test");
  v1::SequenceSlice* slice = request.add_slices();
  slice->set_sequence_id("sequence");
  slice->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  slice->set_first_position(static_cast<uint32_t>(position));
  slice->set_sample(true);
  return request;
}

// What was streamed: the phases in order, and the response that came last.
template <typename Response>
struct Streamed {
  absl::Status status;
  std::vector<std::string> phases;
  Response last;
};

template <typename Response>
Streamed<Response> ReadAll(std::unique_ptr<grpc::ClientReader<Response>> reader) {
  Streamed<Response> streamed;
  while (reader->Read(&streamed.last)) {
    if (!streamed.last.has_progress()) continue;
    const std::string& phase = streamed.last.progress().phase();
    if (streamed.phases.empty() || streamed.phases.back() != phase) {
      streamed.phases.push_back(phase);
    }
  }
  streamed.status = FromGrpc(reader->Finish());
  return streamed;
}

class WorkerServicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-mha12"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    worker_ = std::make_unique<ServingWorker>(0, board_, model_);
  }

  v1::AssignRequest AssignmentOf(const ParallelConfig& config) {
    auto request = ControlOf<v1::AssignRequest>("assign");
    *request.mutable_topology() = ToWire(TopologyOf(kFirst, config));
    return request;
  }
  absl::Status Assign(const v1::AssignRequest& request) {
    grpc::ClientContext context;
    v1::AssignResponse response;
    return FromGrpc(worker_->control->Assign(&context, request, &response));
  }
  void ServeAlone() { ASSERT_OK(worker_->worker.Reach(WorkerState::kServing, kFirst)); }

  absl::Status Forward(const v1::ForwardRequest& request, v1::ForwardResponse* response) {
    grpc::ClientContext context;
    return FromGrpc(worker_->inference->Forward(&context, request, response));
  }
  absl::Status Free(const v1::FreeSequencesRequest& request, uint32_t* freed) {
    grpc::ClientContext context;
    v1::FreeSequencesResponse response;
    const grpc::Status status = worker_->inference->FreeSequences(&context, request, &response);
    *freed = response.freed();
    return FromGrpc(status);
  }
  v1::Capacity Capacity() {
    grpc::ClientContext context;
    v1::GetCapacityResponse response;
    EXPECT_OK(FromGrpc(worker_->inference->GetCapacity(&context, {}, &response)));
    return response.capacity();
  }

  LocalRendezvousBoard board_;
  Golden golden_;
  ModelSource model_;
  std::unique_ptr<ServingWorker> worker_;
};

TEST_F(WorkerServicesTest, AnEpochIsLedThroughItsLife) {
  v1::WorkerControl::Stub& control = *worker_->control;
  ASSERT_OK(Assign(AssignmentOf({})));
  grpc::ClientContext loading, warming, capturing, activating, asking, draining, releasing;

  const auto load = ReadAll(control.Load(&loading, ControlOf<v1::LoadRequest>("load")));
  ASSERT_OK(load.status);
  EXPECT_EQ(load.phases, std::vector<std::string>{"load"});
  EXPECT_GE(load.last.result().weight_bytes(), model_.spec.weight_bytes);

  const auto warmup =
      ReadAll(control.Warmup(&warming, WaitingControlOf<v1::WarmupRequest>("warmup")));
  ASSERT_OK(warmup.status);
  ASSERT_FALSE(warmup.phases.empty());
  EXPECT_EQ(warmup.phases.front(), "warmup/probe");
  EXPECT_GT(warmup.last.result().ledger_size(), 0);

  const auto capture =
      ReadAll(control.Capture(&capturing, WaitingControlOf<v1::CaptureRequest>("capture")));
  ASSERT_OK(capture.status);
  EXPECT_EQ(capture.phases,
            (std::vector<std::string>{"capture/graphs", "capture/kv", "capture/agree"}));
  const v1::CaptureResult& captured = capture.last.result();
  ASSERT_EQ(captured.buckets_size(), 2);
  EXPECT_EQ(captured.buckets(0), 4u);
  // 16 tokens x 2 layers x 2 x 12 heads x 8 x 4 bytes are 24 KiB a block, of 8 MiB.
  EXPECT_EQ(captured.block_tokens(), 16u);
  EXPECT_EQ(captured.kv_blocks(), (8u << 20) / (24u << 10));
  EXPECT_EQ(captured.agreement_digest().size(), 16u);

  const auto activated =
      ReadAll(control.Activate(&activating, ControlOf<v1::ActivateRequest>("go")));
  ASSERT_OK(activated.status);
  EXPECT_EQ(activated.last.result().kv_blocks_moved(), 0u);
  v1::GetStatusResponse status;
  ASSERT_OK(FromGrpc(control.GetStatus(&asking, {}, &status)));
  EXPECT_EQ(status.worker_id(), "w0");
  EXPECT_EQ(status.incarnation(), 100u);
  ASSERT_EQ(status.epochs_size(), 1);
  EXPECT_EQ(status.epochs(0).state(), v1::WORKER_STATE_SERVING);
  EXPECT_GT(status.epochs(0).ledger_size(), 1);

  v1::DrainResponse drained;
  ASSERT_OK(
      FromGrpc(control.Drain(&draining, WaitingControlOf<v1::DrainRequest>("drain"), &drained)));
  v1::ReleaseResponse released;
  ASSERT_OK(
      FromGrpc(control.Release(&releasing, ControlOf<v1::ReleaseRequest>("release"), &released)));
  EXPECT_TRUE(worker_->worker.epochs().Reports().empty());
}

TEST_F(WorkerServicesTest, AHeaderIsChecked) {
  const auto expect_refused = [this](const char* part, const auto& change) {
    v1::AssignRequest request = AssignmentOf({});
    change(*request.mutable_header());
    EXPECT_STATUS(Assign(request), absl::StatusCode::kInvalidArgument, part);
  };
  expect_refused("request_id (bytes) is 0", [](auto& header) { header.clear_request_id(); });
  expect_refused("request_id (bytes) is 65",
                 [](auto& header) { header.set_request_id(std::string(65, 'x')); });
  expect_refused("term is 0", [](auto& header) { header.clear_term(); });
  expect_refused("epoch is 0", [](auto& header) { header.clear_epoch(); });
  expect_refused("replica is 4294967295", [](auto& header) { header.set_replica(UINT32_MAX); });
  v1::AssignRequest request = AssignmentOf({});
  request.set_rank(UINT32_MAX);
  EXPECT_STATUS(Assign(request), absl::StatusCode::kInvalidArgument, "outside the topology");
  request.clear_topology();
  EXPECT_STATUS(Assign(request), absl::StatusCode::kInvalidArgument, "tp is 0");
}

TEST_F(WorkerServicesTest, AWaitWithoutABoundIsRefused) {
  ASSERT_OK(worker_->worker.Reach(WorkerState::kLoaded, kFirst));
  grpc::ClientContext unbounded, beyond;
  const auto forever =
      ReadAll(worker_->control->Warmup(&unbounded, ControlOf<v1::WarmupRequest>("warmup")));
  EXPECT_EQ(forever.status.code(), absl::StatusCode::kInvalidArgument);
  auto request = WaitingControlOf<v1::WarmupRequest>("warmup");
  request.mutable_timeout()->set_seconds(601);
  EXPECT_EQ(ReadAll(worker_->control->Warmup(&beyond, request)).status.code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(WorkerServicesTest, AStreamThatIsRefusedSaysWhy) {
  grpc::ClientContext context;
  const auto load = ReadAll(worker_->control->Load(&context, ControlOf<v1::LoadRequest>("load")));
  EXPECT_STATUS(load.status, absl::StatusCode::kFailedPrecondition, "epoch 1 of replica 0");
  EXPECT_EQ(DetailOf(load.status).reason, ErrorReason::kStaleEpoch);
}

TEST_F(WorkerServicesTest, AClientThatGoesAwayDoesNotStopTheOperation) {
  ServingWorker other(1, board_, model_);
  for (TestWorker* worker : {&worker_->worker, &other.worker}) {
    ASSERT_OK(worker->Assign(kFirst, kTwo));
    ASSERT_OK(worker->Run(EpochCommand::kLoad, kFirst));
  }
  const auto request = WaitingControlOf<v1::WarmupRequest>("warmup");
  {
    grpc::ClientContext context;
    const auto reader = worker_->control->Warmup(&context, request);
    v1::WarmupResponse response;
    while (reader->Read(&response) && response.progress().phase() != "warmup/vote") continue;
    ASSERT_EQ(response.progress().phase(), "warmup/vote");
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  grpc::ClientContext context;
  auto again = worker_->control->Warmup(&context, request);
  ASSERT_OK(other.worker.Run(EpochCommand::kWarmup, kFirst));
  const auto warmup = ReadAll(std::move(again));
  ASSERT_OK(warmup.status);
  EXPECT_GT(warmup.last.result().ledger_size(), 0);
}

TEST_F(WorkerServicesTest, ForwardGivesTheGoldenTokens) {
  ServeAlone();
  std::vector<int> next = golden_.prompt, tokens;
  int position = 0;
  while (tokens.size() < golden_.tokens.size()) {
    v1::ForwardResponse response;
    ASSERT_OK(Forward(ForwardOf(next, position), &response));
    ASSERT_EQ(response.outputs_size(), 1);
    EXPECT_EQ(response.outputs(0).sequence_id(), "sequence");
    EXPECT_LT(response.outputs(0).sampled_logprob(), 0);
    EXPECT_EQ(response.epoch(), kFirst.value());
    EXPECT_EQ(response.step(), tokens.size() + 1);
    EXPECT_EQ(response.bucket(), next.size() == 1 ? 1 : 128) << "70 rows are padded";
    EXPECT_GT(response.device_time().nanos(), 0);
    position += static_cast<int>(next.size());
    next = {static_cast<int>(response.outputs(0).sampled_token())};
    tokens.push_back(next[0]);
  }
  EXPECT_EQ(tokens, golden_.tokens);
}

TEST_F(WorkerServicesTest, SlicesAreAnsweredInOrderWithWhatEachAskedFor) {
  ServeAlone();
  v1::ForwardRequest request = ForwardOf(golden_.prompt, 0);
  request.mutable_slices(0)->set_top_n(3);
  v1::SequenceSlice* silent = request.add_slices();
  silent->set_sequence_id("silent");
  silent->add_token_ids(1);
  v1::ForwardResponse response;
  ASSERT_OK(Forward(request, &response));
  ASSERT_EQ(response.outputs_size(), 2);
  const v1::SliceOutput& asked = response.outputs(0);
  ASSERT_EQ(asked.top_size(), 3);
  EXPECT_EQ(asked.top(0).token_id(), static_cast<uint32_t>(golden_.tokens[0]));
  EXPECT_EQ(asked.top(0).logprob(), asked.sampled_logprob());
  EXPECT_GT(asked.top(1).logprob(), asked.top(2).logprob());
  EXPECT_EQ(response.outputs(1).sequence_id(), "silent");
  EXPECT_FALSE(response.outputs(1).has_sampled_token());
  EXPECT_EQ(response.outputs(1).top_size(), 0);
}

TEST_F(WorkerServicesTest, ARefusalHasADetailThatAnyClientCanRead) {
  ServeAlone();
  grpc::ClientContext context;
  v1::ForwardResponse response;
  const grpc::Status status =
      worker_->inference->Forward(&context, ForwardOf({1, kVocabulary}, 0), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "sequence 'sequence': token id 101 is outside the vocabulary of 101");
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  v1::ErrorDetail detail;
  ASSERT_EQ(rich.details_size(), 1);
  ASSERT_TRUE(rich.details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_INVALID_REQUEST);
}

TEST_F(WorkerServicesTest, SamplingValuesAreChecked) {
  ServeAlone();
  v1::ForwardRequest request = ForwardOf({1}, 0);
  request.mutable_slices(0)->mutable_sampling()->set_top_p(0);
  v1::ForwardResponse response;
  EXPECT_STATUS(Forward(request, &response), absl::StatusCode::kInvalidArgument, "top_p");
  request.mutable_slices(0)->mutable_sampling()->clear_top_p();
  EXPECT_OK(Forward(request, &response)) << "an absent top_p is 1";
}

TEST_F(WorkerServicesTest, AStaleEpochIsRefusedWithTheOneThatServes) {
  ServeAlone();
  v1::ForwardRequest request = ForwardOf({1}, 0);
  request.set_expected_epoch(9);
  v1::ForwardResponse response;
  const absl::Status status = Forward(request, &response);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "epoch 9");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kStaleEpoch);
  EXPECT_EQ(DetailOf(status).epoch, kFirst);
  request.set_expected_epoch(1);
  EXPECT_OK(Forward(request, &response));
}

TEST_F(WorkerServicesTest, AWorkerThatServesNothingMayBeTriedAgain) {
  v1::ForwardResponse response;
  const absl::Status status = Forward(ForwardOf({1}, 0), &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(DetailOf(status).retriable);
}

TEST_F(WorkerServicesTest, AFollowerNamesTheLeader) {
  ServingWorker other(1, board_, model_);
  ASSERT_OK(testing::Serve({&worker_->worker, &other.worker}, kFirst, kTwo));
  grpc::ClientContext forward, model;
  v1::ForwardResponse response;
  const absl::Status refused =
      FromGrpc(other.inference->Forward(&forward, ForwardOf({1}, 0), &response));
  EXPECT_STATUS(refused, absl::StatusCode::kFailedPrecondition, "rank 0, worker w0");
  EXPECT_EQ(DetailOf(refused).workers, std::vector<std::string>{"w0"});
  v1::GetModelResponse facts;
  EXPECT_EQ(other.inference->GetModel(&model, {}, &facts).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_OK(Forward(ForwardOf({1}, 0), &response)) << "the leader serves";
}

TEST_F(WorkerServicesTest, CapacityFollowsTheSequences) {
  ServeAlone();
  const v1::Capacity empty = Capacity();
  EXPECT_EQ(empty.epoch(), kFirst.value());
  EXPECT_EQ(empty.total_blocks(), (8u << 20) / (24u << 10));
  EXPECT_EQ(empty.free_blocks(), empty.total_blocks());
  EXPECT_EQ(empty.block_tokens(), 16u);
  EXPECT_EQ(empty.max_prompt_tokens(), 512u) << "the model's context";
  v1::ForwardResponse response;
  ASSERT_OK(Forward(ForwardOf(golden_.prompt, 0), &response));
  EXPECT_EQ(Capacity().sequences(), 1u);
  EXPECT_EQ(Capacity().free_blocks(), empty.total_blocks() - 5) << "70 tokens";

  v1::FreeSequencesRequest request;
  request.set_client_id("test");
  request.add_sequence_ids("sequence");
  request.add_sequence_ids("unknown");
  uint32_t freed = 0;
  ASSERT_OK(Free(request, &freed));
  EXPECT_EQ(freed, 1u);
  EXPECT_EQ(Capacity().free_blocks(), empty.total_blocks());
  ASSERT_OK(Free(request, &freed));
  EXPECT_EQ(freed, 0u) << "freeing again is no error";
}

TEST_F(WorkerServicesTest, WhatIsFreedIsChecked) {
  ServeAlone();
  uint32_t freed = 0;
  v1::FreeSequencesRequest request;
  EXPECT_STATUS(Free(request, &freed), absl::StatusCode::kInvalidArgument, "client id has 0 bytes");
  request.set_client_id("test");
  request.add_sequence_ids(std::string(129, 'x'));
  EXPECT_STATUS(Free(request, &freed), absl::StatusCode::kInvalidArgument, "has 129 bytes");
  request.clear_sequence_ids();
  for (int i = 0; i <= 1 << 16; ++i) request.add_sequence_ids("x");
  EXPECT_STATUS(Free(request, &freed), absl::StatusCode::kInvalidArgument, "at most 65536");
  request.clear_sequence_ids();
  request.set_expected_epoch(2);
  EXPECT_STATUS(Free(request, &freed), absl::StatusCode::kFailedPrecondition, "epoch 2");
}

TEST_F(WorkerServicesTest, TheModelAndTheLimitsOfAStepAreTold) {
  ServeAlone();
  grpc::ClientContext context;
  v1::GetModelResponse response;
  ASSERT_OK(FromGrpc(worker_->inference->GetModel(&context, {}, &response)));
  EXPECT_EQ(response.model().name(), "llama-mha12");
  EXPECT_EQ(response.model().vocabulary(), kVocabulary);
  EXPECT_EQ(response.epoch(), kFirst.value());
  EXPECT_EQ(response.max_rows_per_step(), 512u);
  EXPECT_EQ(response.max_sequences_per_step(), 32u);
  ASSERT_EQ(response.buckets_size(), 2);
  EXPECT_EQ(response.buckets(0), 4u);
  EXPECT_EQ(response.buckets(1), 1u);
}

absl::StatusOr<v1::MeasureDeviceResponse> Measure(ServingWorker& worker) {
  grpc::ClientContext context;
  v1::MeasureDeviceResponse response;
  const absl::Status status = FromGrpc(worker.control->MeasureDevice(&context, {}, &response));
  if (!status.ok()) return status;
  return response;
}

TEST_F(WorkerServicesTest, TheDeviceIsMeasuredWithOrWithoutAnEpoch) {
  ServeAlone();
  worker_->measure = [] { return DeviceSpeed{3e9, 4e12}; };
  ASSERT_OK_AND_ASSIGN(const auto speed, Measure(*worker_));
  EXPECT_EQ(speed.read_bytes_per_second(), 3e9);
  EXPECT_EQ(speed.matrix_flops_per_second(), 4e12);
  worker_->measure = [] { return absl::ResourceExhaustedError("no room"); };
  EXPECT_STATUS(Measure(*worker_), absl::StatusCode::kResourceExhausted, "no room");
}

TEST_F(WorkerServicesTest, WhoeverMeasuresBesideAnotherIsRefusedAndTold) {
  ServeAlone();
  absl::Notification measuring, go_on;
  worker_->measure = [&] {
    measuring.Notify();
    go_on.WaitForNotification();
    return DeviceSpeed{};
  };
  std::thread first([this] { EXPECT_OK(Measure(*worker_).status()); });
  measuring.WaitForNotification();
  EXPECT_STATUS(Measure(*worker_), absl::StatusCode::kUnavailable, "measured for somebody else");
  go_on.Notify();
  first.join();
}

TEST_F(WorkerServicesTest, AnEpochThatEndsAnswersRequestsInFlight) {
  ServeAlone();
  std::vector<std::thread> clients;
  std::vector<absl::Status> results(8);
  for (absl::Status& result : results) {
    clients.emplace_back([this, &result] {
      const std::vector<int> one = {1};
      for (int position = 0; result.ok(); ++position) {
        v1::ForwardRequest request = ForwardOf(one, position);
        request.set_client_id(absl::StrCat("client ", reinterpret_cast<uintptr_t>(&result)));
        v1::ForwardResponse response;
        result = Forward(request, &response);
      }
    });
  }
  ASSERT_OK(worker_->worker.Run(EpochCommand::kRelease, kFirst));
  for (std::thread& client : clients) client.join();
  for (const absl::Status& result : results) {
    EXPECT_EQ(result.code(), absl::StatusCode::kUnavailable) << result;
    EXPECT_TRUE(DetailOf(result).retriable);
  }
}

}  // namespace
}  // namespace muster
