// What an operator gets of a worker's spans, over a real connection.
#include "worker/service/trace_service.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/wire_status.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "proto/muster/v1/trace.grpc.pb.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"
#include "worker/service/inference_service.h"
#include "worker/service/worker_server.h"

namespace muster {
namespace {

using testing::LocalRendezvousBoard;
using testing::TestWorker;

constexpr char kTraceParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

v1::ForwardRequest Request(const std::string& id) {
  v1::ForwardRequest request;
  request.set_client_id("test");
  request.set_request_id(id);
  v1::SequenceSlice* slice = request.add_slices();
  slice->set_sequence_id(id);
  slice->add_token_ids(1);
  slice->set_sample(true);
  return request;
}

// A call of Collect, whose first message has come.
class Collection {
 public:
  Collection(v1::Trace::Stub& stub, absl::Duration duration) {
    v1::CollectRequest request;
    request.mutable_duration()->set_seconds(absl::ToInt64Seconds(duration));
    request.mutable_duration()->set_nanos(
        static_cast<int32_t>(absl::ToInt64Nanoseconds(duration) % 1'000'000'000));
    reader_ = stub.Collect(&context_, request);
    Read();
  }

  // False when there is none any more.
  bool Read() {
    v1::CollectResponse response;
    if (!reader_->Read(&response)) return false;
    spans_.insert(spans_.end(), response.spans().begin(), response.spans().end());
    return true;
  }
  // Those of one kind once there are so many, in the order in which they came.
  std::vector<v1::Span> Await(v1::SpanKind kind, size_t count) {
    std::vector<v1::Span> found;
    do {
      found.clear();
      for (const v1::Span& span : spans_) {
        if (span.kind() == kind) found.push_back(span);
      }
    } while (found.size() < count && Read());
    EXPECT_EQ(found.size(), count);
    return found;
  }
  absl::Status Finish() {
    while (Read()) {
    }
    return FromGrpc(reader_->Finish());
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::CollectResponse>> reader_;
  std::vector<v1::Span> spans_;
};

class TraceServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const Golden golden, ReadGolden("llama-mha12"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden.directory, "float32"));
    worker_ = std::make_unique<TestWorker>(
        0, board_, model_, [](std::unique_ptr<Rendezvous> it) { return it; }, Clock::Real(),
        [this](EpochContext::Options& options) { options.spans = spans_; });
    ASSERT_OK(worker_->Reach(WorkerState::kServing, Epoch(1)));
    ASSERT_OK_AND_ASSIGN(server_, WorkerServer::Start({.host = "127.0.0.1"},
                                                      {MakeInferenceService(worker_->epochs()),
                                                       MakeTraceService(spans_)}));
    const auto channel =
        grpc::CreateChannel(server_->address().ToString(), grpc::InsecureChannelCredentials());
    inference_ = v1::Inference::NewStub(channel);
    trace_ = v1::Trace::NewStub(channel);
  }
  void TearDown() override {
    if (worker_ != nullptr) worker_->epochs().Close(absl::UnavailableError("the test ends"));
  }

  void Forward(const std::string& id, const std::vector<std::string>& trace_parents) {
    grpc::ClientContext context;
    for (const std::string& it : trace_parents) context.AddMetadata("traceparent", it);
    v1::ForwardResponse response;
    EXPECT_OK(FromGrpc(inference_->Forward(&context, Request(id), &response)));
  }

  const std::shared_ptr<SpanRing> spans_ = std::make_shared<SpanRing>();
  LocalRendezvousBoard board_;
  ModelSource model_;
  std::unique_ptr<TestWorker> worker_;
  std::unique_ptr<WorkerServer> server_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Trace::Stub> trace_;
};

TEST_F(TraceServiceTest, ARequestIsFoundWithTheTraceThatItsCallIsPartOf) {
  Collection collection(*trace_, absl::Seconds(30));
  Forward("r-1", {kTraceParent});
  const v1::Span request = collection.Await(v1::SPAN_KIND_REQUEST, 1).at(0);
  EXPECT_EQ(request.request_id(), "r-1");
  EXPECT_EQ(request.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(request.parent_span_id(), "00f067aa0ba902b7");
  EXPECT_EQ(request.epoch(), 1u);
  const v1::Span step = collection.Await(v1::SPAN_KIND_STEP, 1).at(0);
  EXPECT_EQ(step.step(), request.step());
  EXPECT_EQ(step.request_id(), "");
  const v1::Span device = collection.Await(v1::SPAN_KIND_DEVICE, 1).at(0);
  EXPECT_EQ(device.work().rows(), 1u);
}

TEST_F(TraceServiceTest, SoAreAllRequestsOfAStream) {
  Collection collection(*trace_, absl::Seconds(30));
  grpc::ClientContext context;
  context.AddMetadata("traceparent", kTraceParent);
  const auto stream = inference_->ForwardStream(&context);
  for (const char* id : {"a", "b"}) EXPECT_TRUE(stream->Write(Request(id)));
  stream->WritesDone();
  for (v1::ForwardStreamResponse response; stream->Read(&response);) {
    EXPECT_FALSE(response.has_error());
  }
  EXPECT_TRUE(stream->Finish().ok());
  const std::vector<v1::Span> requests = collection.Await(v1::SPAN_KIND_REQUEST, 2);
  EXPECT_EQ(requests[0].request_id(), "a");
  EXPECT_EQ(requests[1].request_id(), "b");
  for (const v1::Span& span : requests) {
    EXPECT_EQ(span.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
  }
}

TEST_F(TraceServiceTest, AMalformedHeaderIsIgnored) {
  Collection collection(*trace_, absl::Seconds(30));
  Forward("none", {});
  Forward("short", {"00-4bf9"});
  Forward("empty", {""});
  Forward("twice", {kTraceParent, kTraceParent});
  for (const v1::Span& span : collection.Await(v1::SPAN_KIND_REQUEST, 4)) {
    EXPECT_EQ(span.trace_id(), "") << span.request_id();
    EXPECT_EQ(span.parent_span_id(), "") << span.request_id();
  }
}

TEST_F(TraceServiceTest, ACollectionEndsWithItsTimeAndNothingIsRecordedThen) {
  Collection collection(*trace_, absl::Milliseconds(1));
  EXPECT_OK(collection.Finish());
  EXPECT_FALSE(spans_->on());
}

TEST_F(TraceServiceTest, ACallerThatLeavesIsForgotten) {
  Collection leaves(*trace_, absl::Minutes(1));
  EXPECT_TRUE(spans_->on());
  leaves.Cancel();
  EXPECT_STATUS(leaves.Finish(), absl::StatusCode::kCancelled, "");
  server_->Stop(absl::Seconds(10));
  EXPECT_FALSE(spans_->on());
}

TEST_F(TraceServiceTest, AWorkerThatEndsEndsItsCollections) {
  Collection collection(*trace_, absl::Minutes(1));
  server_->Stop(absl::ZeroDuration());
  EXPECT_FALSE(collection.Finish().ok());
}

TEST_F(TraceServiceTest, CallersAreFewAndTimesShort) {
  for (const absl::Duration bad : {absl::ZeroDuration(), absl::Seconds(-1), absl::Seconds(61)}) {
    EXPECT_STATUS(Collection(*trace_, bad).Finish(), absl::StatusCode::kInvalidArgument,
                  "it can be up to 1m");
  }
  std::vector<std::unique_ptr<Collection>> most;
  for (int i = 0; i < 16; ++i) {
    most.push_back(std::make_unique<Collection>(*trace_, absl::Minutes(1)));
  }
  EXPECT_STATUS(Collection(*trace_, absl::Seconds(1)).Finish(),
                absl::StatusCode::kResourceExhausted, "16 callers collect spans already");
  for (const auto& collection : most) collection->Cancel();
}

TEST_F(TraceServiceTest, TheClockIsThatOfTheSpans) {
  Collection collection(*trace_, absl::Seconds(30));
  const auto now = [this] {
    grpc::ClientContext context;
    v1::ReadClockResponse response;
    EXPECT_TRUE(trace_->ReadClock(&context, {}, &response).ok());
    return absl::FromUnixSeconds(response.time().seconds()) +
           absl::Nanoseconds(response.time().nanos());
  };
  const absl::Time before = now();
  Forward("r-1", {});
  const absl::Time after = now();
  const v1::Span span = collection.Await(v1::SPAN_KIND_REQUEST, 1).at(0);
  const absl::Time begin =
      absl::FromUnixSeconds(span.begin().seconds()) + absl::Nanoseconds(span.begin().nanos());
  EXPECT_LE(before, begin);
  EXPECT_LE(begin + absl::Nanoseconds(span.duration().nanos()), after);
}

}  // namespace
}  // namespace muster
