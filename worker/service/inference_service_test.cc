// What a scheduler gets from a leader, over a real connection.
#include "worker/service/inference_service.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "base/wire_status.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"
#include "worker/service/worker_server.h"

namespace muster {
namespace {

using testing::LocalRendezvousBoard;
using testing::TestWorker;
using Code = absl::StatusCode;

constexpr Epoch kFirst{1};
constexpr uint32_t kVocabulary = 101;
constexpr uint32_t kLayers = 2;

v1::SequenceSlice* AddSlice(v1::ForwardRequest& request, const std::string& sequence,
                            const std::vector<int>& tokens, int position) {
  v1::SequenceSlice* slice = request.add_slices();
  slice->set_sequence_id(sequence);
  slice->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  slice->set_first_position(static_cast<uint32_t>(position));
  return slice;
}

v1::ForwardRequest Request(const std::string& sequence, const std::vector<int>& tokens,
                           int position) {
  v1::ForwardRequest request;
  request.set_client_id("test");
  AddSlice(request, sequence, tokens, position)->set_sample(true);
  return request;
}

// Keeps the engine from going on after its next change, until it is let go.
class Brake {
 public:
  explicit Brake(Engine& engine) { engine.WatchCapacity(watcher_); }
  ~Brake() { LetGo(); }

  // Until the engine stands.
  void Wait() { standing_.WaitForNotification(); }
  void LetGo() {
    if (!free_.HasBeenNotified()) free_.Notify();
  }

 private:
  absl::Notification standing_, free_;
  std::shared_ptr<Engine::CapacityWatcher> watcher_ =
      std::make_shared<Engine::CapacityWatcher>([this](const absl::Status&) {
        if (!standing_.HasBeenNotified()) standing_.Notify();
        free_.WaitForNotification();
      });
};

class InferenceServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-mha12"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    worker_ = std::make_unique<TestWorker>(0, board_, model_);
    ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
    ASSERT_OK_AND_ASSIGN(server_, WorkerServer::Start({.host = "127.0.0.1"},
                                                      {MakeInferenceService(worker_->epochs())}));
    Connect();
  }
  void TearDown() override {
    if (worker_ != nullptr) worker_->epochs().Close(absl::UnavailableError("the test ends"));
  }

  // A connection of its own.
  void Connect() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Inference::NewStub(grpc::CreateCustomChannel(
        server_->address().ToString(), grpc::InsecureChannelCredentials(), arguments));
  }
  absl::StatusOr<v1::ForwardResponse> Forward(const v1::ForwardRequest& request) {
    grpc::ClientContext context;
    v1::ForwardResponse response;
    const absl::Status status = FromGrpc(stub_->Forward(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  absl::StatusOr<v1::ForkSequenceResponse> Fork(const std::string& from, const std::string& to,
                                                uint32_t tokens) {
    grpc::ClientContext context;
    v1::ForkSequenceRequest request;
    request.set_client_id("test");
    request.set_sequence_id(from);
    request.set_new_sequence_id(to);
    request.set_tokens(tokens);
    v1::ForkSequenceResponse response;
    const absl::Status status = FromGrpc(stub_->ForkSequence(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  absl::StatusOr<uint32_t> FreeAll(const std::string& sequence = "") {
    grpc::ClientContext context;
    v1::FreeSequencesRequest request;
    request.set_client_id("test");
    request.set_all(true);
    if (!sequence.empty()) request.add_sequence_ids(sequence);
    v1::FreeSequencesResponse response;
    const absl::Status status = FromGrpc(stub_->FreeSequences(&context, request, &response));
    if (!status.ok()) return status;
    return response.freed();
  }
  v1::Capacity Capacity() {
    grpc::ClientContext context;
    v1::GetCapacityResponse response;
    EXPECT_OK(FromGrpc(stub_->GetCapacity(&context, {}, &response)));
    return response.capacity();
  }
  Engine& engine() { return (*worker_->epochs().Serving())->engine(); }

  LocalRendezvousBoard board_;
  Golden golden_;
  ModelSource model_;
  std::unique_ptr<TestWorker> worker_;
  std::unique_ptr<WorkerServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, AStreamAnswersInOrderAndARefusalDoesNotEndIt) {
  grpc::ClientContext context;
  const auto stream = stub_->ForwardStream(&context);
  // All on their way at once: a prompt, a position that does not continue it, a decode step.
  v1::ForwardRequest requests[] = {Request("s", golden_.prompt, 0), Request("s", {1}, 3),
                                   Request("s", {golden_.tokens[0]}, 70)};
  for (int i = 0; i < 3; ++i) {
    requests[i].set_request_id(absl::StrCat(i));
    ASSERT_TRUE(stream->Write(requests[i]));
  }
  v1::ForwardStreamResponse prompt, refused, decode, more;
  ASSERT_TRUE(stream->Read(&prompt) && stream->Read(&refused) && stream->Read(&decode));
  EXPECT_EQ(prompt.request_id(), "0");
  EXPECT_EQ(prompt.response().outputs(0).sampled_token(), golden_.tokens[0]);
  EXPECT_EQ(refused.request_id(), "1");
  EXPECT_EQ(refused.error().code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::ErrorDetail detail;
  ASSERT_EQ(refused.error().details_size(), 1);
  ASSERT_TRUE(refused.error().details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_POSITION_MISMATCH);
  EXPECT_EQ(decode.response().outputs(0).sampled_token(), golden_.tokens[1]);
  ASSERT_TRUE(stream->WritesDone());
  EXPECT_FALSE(stream->Read(&more));
  EXPECT_OK(FromGrpc(stream->Finish()));
}

TEST_F(InferenceServiceTest, AStreamTakesMoreRequestsThanItReadsAhead) {
  constexpr int kRequests = 200;
  grpc::ClientContext context;
  const auto stream = stub_->ForwardStream(&context);
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) EXPECT_TRUE(stream->Write(Request("s", {5}, i)));
    EXPECT_TRUE(stream->WritesDone());
  });
  v1::ForwardStreamResponse response;
  int answered = 0;
  uint64_t step = 0;
  for (; stream->Read(&response); ++answered) {
    ASSERT_TRUE(response.has_response()) << response.error().message();
    EXPECT_GT(response.response().step(), step);
    step = response.response().step();
  }
  writer.join();
  EXPECT_EQ(answered, kRequests);
  EXPECT_OK(FromGrpc(stream->Finish()));
}

TEST_F(InferenceServiceTest, WhatACancelledStreamHadWaitingIsNotRun) {
  // The leader learns of it some time after the caller: until then it may run what waits.
  constexpr int kTries = 100;
  int ran = 2;
  for (int i = 0; i < kTries && ran > 0; ++i) {
    Brake brake(engine());
    grpc::ClientContext context;
    const auto stream = stub_->ForwardStream(&context);
    for (const char* sequence : {"a", "b", "c"}) {
      ASSERT_TRUE(stream->Write(Request(sequence, {1, 2, 3}, 0)));
    }
    brake.Wait();  // after the step of "a"
    while (Capacity().queued_requests() < 2) std::this_thread::yield();
    context.TryCancel();
    v1::ForwardStreamResponse response;
    while (stream->Read(&response)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    brake.LetGo();
    // Comes after them in the queue.
    ran = static_cast<int>(*FreeAll()) - 1;
  }
  EXPECT_EQ(ran, 0);
}

TEST_F(InferenceServiceTest, ADeadlineThatPassesInTheQueueLeavesNothing) {
  // It passes a little later at the leader, which counts from when the request came.
  constexpr int kTries = 100;
  int ran = 1;
  for (int i = 0; i < kTries && ran > 0; ++i) {
    Brake brake(engine());
    auto first = std::async(std::launch::async, [&] { return Forward(Request("a", {1}, 0)); });
    brake.Wait();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
    v1::ForwardResponse response;
    EXPECT_EQ(stub_->Forward(&context, Request("b", {1}, 0), &response).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
    brake.LetGo();
    ASSERT_OK(first.get());
    ran = static_cast<int>(*FreeAll()) - 1;
  }
  EXPECT_EQ(ran, 0);
}

TEST_F(InferenceServiceTest, ARetryGetsTheRecordedAnswerAlsoOverANewConnection) {
  v1::ForwardRequest request = Request("s", golden_.prompt, 0);
  request.set_request_id("1");
  const auto first = Forward(request);
  ASSERT_OK(first);
  Connect();
  const auto again = Forward(request);
  ASSERT_OK(again);
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  request.mutable_slices(0)->set_top_n(1);
  const absl::Status reused = Forward(request).status();
  EXPECT_STATUS(reused, Code::kInvalidArgument, "request id '1' was used");
  EXPECT_EQ(DetailOf(reused).reason, ErrorReason::kRequestIdReused);
  EXPECT_OK(Forward(Request("s", {golden_.tokens[0]}, 70)));
}

TEST_F(InferenceServiceTest, TwoPartsOfTheLayersGiveTheLogitsOfAll) {
  v1::ForwardRequest whole = Request("whole", golden_.prompt, 0);
  whole.mutable_slices(0)->set_return_logits(true);
  const auto all = Forward(whole);
  ASSERT_OK(all);
  EXPECT_EQ(all->outputs(0).logits_size(), static_cast<int>(kVocabulary));

  v1::ForwardRequest front = Request("parts", golden_.prompt, 0);
  v1::SequenceSlice& slice = *front.mutable_slices(0);
  slice.set_sample(false);
  slice.mutable_layers()->set_end(1);
  slice.set_return_hidden_states(1);
  const auto hidden = Forward(front);
  ASSERT_OK(hidden);
  v1::ForwardRequest back = Request("parts", {}, 0);
  back.mutable_slices(0)->mutable_layers()->set_begin(1);
  back.mutable_slices(0)->mutable_layers()->set_end(kLayers);
  back.mutable_slices(0)->set_return_logits(true);
  *back.mutable_slices(0)->mutable_hidden_states() = hidden->outputs(0).hidden_states();
  const auto rest = Forward(back);
  ASSERT_OK(rest);
  EXPECT_EQ(rest->outputs(0).sampled_token(), golden_.tokens[0]);
  ASSERT_EQ(rest->outputs(0).logits_size(), static_cast<int>(kVocabulary));
  EXPECT_TRUE(std::equal(rest->outputs(0).logits().begin(), rest->outputs(0).logits().end(),
                         all->outputs(0).logits().begin()));
  EXPECT_EQ(Capacity().not_rebuildable_sequences(), 1u);

  back.mutable_slices(0)->mutable_layers()->set_begin(UINT32_MAX);
  EXPECT_STATUS(Forward(back).status(), Code::kInvalidArgument, "are no range of the model's 2");
}

TEST_F(InferenceServiceTest, AForkGoesOnAsItsParentWould) {
  ASSERT_OK(Forward(Request("parent", golden_.prompt, 0)));
  const auto forked = Fork("parent", "child", 70);
  ASSERT_OK(forked);
  EXPECT_EQ(forked->tokens(), 70u);
  EXPECT_EQ(forked->shared_blocks(), 5u);
  const uint64_t free = Capacity().free_blocks();
  // Both write into the block that they share; neither sees the other's token.
  ASSERT_OK(Forward(Request("child", {7}, 70)));
  EXPECT_EQ(Capacity().free_blocks(), free - 1);
  for (const char* sequence : {"parent", "again"}) {
    if (sequence != std::string("parent")) {
      ASSERT_OK(Fork("child", sequence, 70));
    }
    const auto next = Forward(Request(sequence, {golden_.tokens[0]}, 70));
    ASSERT_OK(next);
    EXPECT_EQ(next->outputs(0).sampled_token(), golden_.tokens[1]) << sequence;
  }
  const absl::Status exists = Fork("parent", "child", 1).status();
  EXPECT_STATUS(exists, Code::kAlreadyExists, "'child' is held already");
  EXPECT_EQ(DetailOf(exists).reason, ErrorReason::kSequenceExists);
}

TEST_F(InferenceServiceTest, FreeingAllLeavesOtherClientsTheirs) {
  v1::ForwardRequest other = Request("s", {1}, 0);
  other.set_client_id("other");
  ASSERT_OK(Forward(other));
  ASSERT_OK(Forward(Request("a", {1}, 0)));
  ASSERT_OK(Forward(Request("b", {1}, 0)));
  const auto freed = FreeAll();
  ASSERT_OK(freed);
  EXPECT_EQ(*freed, 2u);
  EXPECT_EQ(Capacity().sequences(), 1u);
  EXPECT_STATUS(FreeAll("and a name").status(), Code::kInvalidArgument, "must be one of them");
}

TEST_F(InferenceServiceTest, CapacityIsWatchedUntilTheEpochEnds) {
  grpc::ClientContext context;
  const auto stream = stub_->WatchCapacity(&context, {});
  v1::WatchCapacityResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const v1::Capacity empty = response.capacity();
  EXPECT_EQ(empty.sequences(), 0u);
  ASSERT_OK(Forward(Request("s", golden_.prompt, 0)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.capacity().free_blocks(), empty.free_blocks() - 5);
  ASSERT_OK(worker_->Run(EpochCommand::kRelease, kFirst));
  while (stream->Read(&response)) {
  }
  EXPECT_STATUS(FromGrpc(stream->Finish()), Code::kUnavailable, "epoch 1");
}

TEST_F(InferenceServiceTest, AWatcherThatLeavesIsForgotten) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    const auto stream = stub_->WatchCapacity(&context, {});
    v1::WatchCapacityResponse response;
    ASSERT_TRUE(stream->Read(&response));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    ASSERT_OK(Forward(Request("s", {1}, i)));
  }
}

TEST_F(InferenceServiceTest, TheModelTellsAllThatForwardAccepts) {
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_OK(FromGrpc(stub_->GetModel(&context, {}, &model)));
  EXPECT_EQ(model.max_sequences(), 256u);
  EXPECT_EQ(model.max_top_n(), 64u);
  EXPECT_EQ(model.max_queued_requests(), 256u);
  EXPECT_EQ(model.max_request_bytes(), 64u << 20);
  EXPECT_EQ(model.client_lease().seconds(), 600);
  EXPECT_EQ(model.block_tokens(), 16u);
}

}  // namespace
}  // namespace muster
