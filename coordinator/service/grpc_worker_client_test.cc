#include "coordinator/service/grpc_worker_client.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "coordinator/service/service_test_support.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

// A worker that answers as the test says.
class FakeWorker : public v1::WorkerControl::Service {
 public:
  grpc::Status Assign(grpc::ServerContext* /*context*/, const v1::AssignRequest* request,
                      v1::AssignResponse* /*response*/) override {
    assigned = *request;
    return Take(request->header());
  }
  grpc::Status Load(grpc::ServerContext* context, const v1::LoadRequest* request,
                    grpc::ServerWriter<v1::LoadResponse>* writer) override {
    v1::LoadResponse response;
    *response.mutable_progress() = ToWire(Progress{"load", 1, 2, "bytes"});
    writer->Write(response);
    while (stalls && !context->IsCancelled()) std::this_thread::yield();
    if (!says_result) return grpc::Status::OK;
    response.mutable_result()->set_weight_bytes(2);
    writer->Write(response);
    return Take(request->header());
  }
  grpc::Status Warmup(grpc::ServerContext* /*context*/, const v1::WarmupRequest* request,
                      grpc::ServerWriter<v1::WarmupResponse>* writer) override {
    wait_bound = FromWire(request->timeout());
    v1::WarmupResponse response;
    *response.mutable_result()->add_ledger() = ToWire(LedgerEntry{"weights", 64});
    writer->Write(response);
    return Take(request->header());
  }
  grpc::Status Capture(grpc::ServerContext* /*context*/, const v1::CaptureRequest* request,
                       grpc::ServerWriter<v1::CaptureResponse>* writer) override {
    v1::CaptureResponse response;
    response.mutable_result()->set_kv_blocks(9);
    response.mutable_result()->set_block_tokens(16);
    for (const uint32_t rows : buckets) response.mutable_result()->add_buckets(rows);
    response.mutable_result()->set_agreement_digest(digest);
    writer->Write(response);
    return Take(request->header());
  }
  grpc::Status Activate(grpc::ServerContext* /*context*/, const v1::ActivateRequest* request,
                        grpc::ServerWriter<v1::ActivateResponse>* writer) override {
    activated = *request;
    v1::ActivateResponse response;
    response.mutable_result()->set_kv_blocks_moved(21);
    writer->Write(response);
    return Take(request->header());
  }
  grpc::Status DescribeCache(grpc::ServerContext* /*context*/,
                             const v1::DescribeCacheRequest* request,
                             v1::DescribeCacheResponse* response) override {
    response->add_blocks_by_index(4);
    response->set_block_tokens(block_tokens);
    return Take(request->header());
  }
  grpc::Status Drain(grpc::ServerContext* /*context*/, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override {
    wait_bound = FromWire(request->timeout());
    response->set_sequences(3);
    return Take(request->header());
  }
  grpc::Status Release(grpc::ServerContext* /*context*/, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* /*response*/) override {
    return Take(request->header());
  }

  // Set before a call, read after it.
  absl::Status answer;
  bool stalls = false;
  bool says_result = true;
  std::string digest = "ab";
  uint32_t block_tokens = 16;
  std::vector<uint32_t> buckets = {8, 1};
  v1::AssignRequest assigned;
  v1::ActivateRequest activated;
  absl::Duration wait_bound;
  std::vector<v1::ControlHeader> headers;

 private:
  grpc::Status Take(const v1::ControlHeader& header) {
    headers.push_back(header);
    return ToGrpc(answer);
  }
};

class GrpcWorkerClientTest : public ::testing::Test {
 protected:
  GrpcWorkerClientTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&worker_);
    server_ = builder.BuildAndStart();
    target_.placement.address = absl::StrCat("127.0.0.1:", port);
    topology_.ranks = {target_.placement};
  }

  // Starts a phase; `answer_` and `answered_` tell its end, `started_` its first progress.
  void Start(FormingPhase phase, absl::Duration deadline = absl::Minutes(1)) {
    inputs_.deadline = deadline;
    client_.RunPhase(
        phase, target_, topology_, inputs_,
        [this](const Progress& progress) {
          progress_ = progress;
          if (!started_.HasBeenNotified()) started_.Notify();
        },
        [this](absl::StatusOr<PhaseResult> result) {
          answer_ = std::move(result);
          answered_.Notify();
        });
  }
  absl::StatusOr<PhaseResult> Run(FormingPhase phase, absl::Duration deadline = absl::Minutes(1)) {
    Start(phase, deadline);
    answered_.WaitForNotification();
    return answer_;
  }

  FakeWorker worker_;
  std::unique_ptr<grpc::Server> server_;
  RankTarget target_{.placement = {.worker_id = "w0", .incarnation = Incarnation(5)},
                     .replica = ReplicaIndex(0),
                     .epoch = Epoch(3),
                     .term = Term(2)};
  Topology topology_{.epoch = Epoch(3), .term = Term(2), .groups = DeriveGroups({}, Epoch(3))};
  PhaseInputs inputs_{.wait_bound = absl::Seconds(7)};
  Progress progress_;
  absl::Notification started_, answered_;
  absl::StatusOr<PhaseResult> answer_;
  GrpcWorkerClient client_;
};

TEST_F(GrpcWorkerClientTest, AssignCarriesTopologyRankAndHeader) {
  ASSERT_OK(Run(FormingPhase::kAssign));
  ASSERT_OK_AND_ASSIGN(const Topology topology, FromWire(worker_.assigned.topology()));
  EXPECT_EQ(topology, topology_);
  EXPECT_EQ(worker_.assigned.rank(), 0u);
  const v1::ControlHeader& header = worker_.assigned.header();
  EXPECT_EQ(header.term(), 2u);
  EXPECT_EQ(header.epoch(), 3u);
  EXPECT_FALSE(header.request_id().empty());
}

TEST_F(GrpcWorkerClientTest, AssignOfAnEpochThatFollowsCarriesWhatItFollows) {
  inputs_.predecessor = topology_;
  inputs_.buckets = {64, 1};
  inputs_.reserve_bytes = 77;
  ASSERT_OK(Run(FormingPhase::kAssign));
  ASSERT_OK_AND_ASSIGN(const Topology predecessor, FromWire(worker_.assigned.predecessor()));
  EXPECT_EQ(predecessor, topology_);
  ASSERT_EQ(worker_.assigned.buckets_size(), 2);
  EXPECT_EQ(worker_.assigned.buckets(0), 64u);
  EXPECT_EQ(worker_.assigned.reserve_bytes(), 77u);
}

TEST_F(GrpcWorkerClientTest, AFirstEpochFollowsNone) {
  ASSERT_OK(Run(FormingPhase::kAssign));
  EXPECT_FALSE(worker_.assigned.has_predecessor());
}

TEST_F(GrpcWorkerClientTest, ActivateCarriesTheTakeoverAndGivesWhatItDid) {
  inputs_.from_epoch = Epoch(2);
  inputs_.agreement_digest = "ab";
  inputs_.takeover_timeout = absl::Seconds(9);
  inputs_.drop = {{"bench", "s1"}};
  ASSERT_OK_AND_ASSIGN(const PhaseResult result, Run(FormingPhase::kActivate));
  EXPECT_EQ(result.takeover.kv_blocks_moved, 21u);
  EXPECT_EQ(worker_.activated.from_epoch(), 2u);
  EXPECT_EQ(worker_.activated.agreement_digest(), "ab");
  EXPECT_EQ(FromWire(worker_.activated.timeout()), absl::Seconds(9));
  ASSERT_EQ(worker_.activated.drop_size(), 1);
  EXPECT_EQ(worker_.activated.drop(0).sequence_id(), "s1");
}

TEST_F(GrpcWorkerClientTest, ALeaderSaysWhatItsCacheHolds) {
  const auto describe = [&] {
    absl::Notification answered;
    absl::StatusOr<CacheSummary> answer;
    client_.DescribeCache(target_, absl::Minutes(1), [&](absl::StatusOr<CacheSummary> summary) {
      answer = std::move(summary);
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  };
  ASSERT_OK_AND_ASSIGN(const CacheSummary summary, describe());
  EXPECT_EQ(summary.blocks_by_index, std::vector<uint64_t>{4});
  worker_.block_tokens = 1 << 20;
  EXPECT_STATUS(describe(), absl::StatusCode::kInvalidArgument, "block_tokens is 1048576");
  worker_.answer = absl::FailedPreconditionError("it does not lead");
  EXPECT_STATUS(describe(), absl::StatusCode::kFailedPrecondition, "it does not lead");
}

TEST_F(GrpcWorkerClientTest, ALeaderDrainsWithinItsTimeAndSaysWhatItHolds) {
  const auto drain = [&] {
    absl::Notification answered;
    absl::StatusOr<int> answer;
    client_.Drain(target_, absl::Seconds(9), [&](const absl::StatusOr<int>& sequences) {
      answer = sequences;
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  };
  ASSERT_OK_AND_ASSIGN(const int sequences, drain());
  EXPECT_EQ(sequences, 3);
  EXPECT_EQ(worker_.wait_bound, absl::Seconds(9));
  worker_.answer = absl::DeadlineExceededError("2 requests are still in flight after 9s");
  EXPECT_STATUS(drain(), absl::StatusCode::kDeadlineExceeded, "2 requests are still in flight");
}

TEST_F(GrpcWorkerClientTest, LoadTellsItsProgressBeforeItsResult) {
  ASSERT_OK(Run(FormingPhase::kLoad));
  EXPECT_EQ(progress_, (Progress{"load", 1, 2, "bytes"}));
}

TEST_F(GrpcWorkerClientTest, WarmupHasItsBoundAndGivesALedger) {
  ASSERT_OK_AND_ASSIGN(const PhaseResult result, Run(FormingPhase::kWarmup));
  EXPECT_EQ(worker_.wait_bound, absl::Seconds(7));
  EXPECT_EQ(result.ledger, (std::vector<LedgerEntry>{{"weights", 64}}));
}

TEST_F(GrpcWorkerClientTest, CaptureGivesBlocksAndDigest) {
  ASSERT_OK_AND_ASSIGN(const PhaseResult result, Run(FormingPhase::kCapture));
  EXPECT_EQ(result.kv_blocks, 9u);
  EXPECT_EQ(result.block_tokens, 16);
  EXPECT_EQ(result.buckets, (std::vector<int>{8, 1}));
  EXPECT_EQ(result.agreement_digest, "ab");
}

TEST_F(GrpcWorkerClientTest, MoreGraphsThanAWorkerCanHaveAreRefused) {
  worker_.buckets.assign(33, 1);
  EXPECT_STATUS(Run(FormingPhase::kCapture), absl::StatusCode::kInvalidArgument,
                "buckets has 33 entries; it can have 32");
}

TEST_F(GrpcWorkerClientTest, GraphsOfMoreRowsThanAStepCanHaveAreRefused) {
  worker_.buckets = {1 << 20};
  EXPECT_STATUS(Run(FormingPhase::kCapture), absl::StatusCode::kInvalidArgument,
                "buckets[0] is 1048576; it can be 1 to 65536");
}

TEST_F(GrpcWorkerClientTest, EveryCallHasARequestIdOfItsOwn) {
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    absl::Notification released;
    client_.Release(target_, absl::OkStatus(), absl::Minutes(1), [&](const absl::Status& status) {
      EXPECT_OK(status);
      released.Notify();
    });
    released.WaitForNotification();
    ids.insert(worker_.headers.back().request_id());
  }
  EXPECT_EQ(ids.size(), 3u);
}

TEST_F(GrpcWorkerClientTest, TheWorkersOwnErrorKeepsCodeTextAndDetail) {
  worker_.answer = MakeError(absl::StatusCode::kResourceExhausted, "0.7 GiB free",
                             {.reason = ErrorReason::kOutOfMemory, .phase = "warmup/allocate"});
  const absl::Status status = Run(FormingPhase::kWarmup).status();
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted, "0.7 GiB free");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kOutOfMemory);
  EXPECT_EQ(DetailOf(status).phase, "warmup/allocate");
}

TEST_F(GrpcWorkerClientTest, AWorkerThatCannotBeReachedIsLost) {
  server_->Shutdown();
  const absl::Status status = Run(FormingPhase::kAssign).status();
  EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "its connection broke");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kRankLost);
}

TEST_F(GrpcWorkerClientTest, AWorkerThatDiesDuringACallIsLost) {
  worker_.stalls = true;
  Start(FormingPhase::kLoad);
  started_.WaitForNotification();
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
  answered_.WaitForNotification();
  EXPECT_EQ(DetailOf(answer_.status()).reason, ErrorReason::kRankLost);
}

TEST_F(GrpcWorkerClientTest, ACallWithoutAnAnswerEndsAtItsDeadline) {
  worker_.stalls = true;
  const absl::Status status = Run(FormingPhase::kLoad, absl::Milliseconds(50)).status();
  EXPECT_STATUS(status, absl::StatusCode::kDeadlineExceeded, "it did not answer within 50ms");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kRankMissing);
}

TEST_F(GrpcWorkerClientTest, AStreamWithoutAResultIsAFailure) {
  worker_.says_result = false;
  EXPECT_STATUS(Run(FormingPhase::kLoad), absl::StatusCode::kInternal, "ended without a result");
}

TEST_F(GrpcWorkerClientTest, AMalformedResultIsAFailure) {
  worker_.digest = std::string(65, 'a');
  EXPECT_STATUS(Run(FormingPhase::kCapture), absl::StatusCode::kInvalidArgument,
                "agreement_digest has 65 bytes");
}

TEST_F(GrpcWorkerClientTest, AForgottenProcessEndsItsCallsAsLost) {
  worker_.stalls = true;
  Start(FormingPhase::kLoad);
  started_.WaitForNotification();
  client_.Forget(target_.placement.address, Incarnation(4));
  EXPECT_FALSE(answered_.HasBeenNotified());
  client_.Forget(target_.placement.address, target_.placement.incarnation);
  answered_.WaitForNotification();
  EXPECT_EQ(DetailOf(answer_.status()).reason, ErrorReason::kRankLost);
}

TEST_F(GrpcWorkerClientTest, StopEndsTheCallsAndReturnsAfterTheirCallbacks) {
  worker_.stalls = true;
  Start(FormingPhase::kLoad);
  started_.WaitForNotification();
  client_.Stop();
  EXPECT_TRUE(answered_.HasBeenNotified());
  client_.RunPhase(
      FormingPhase::kAssign, target_, topology_, inputs_, [](const Progress&) {},
      [](const auto&) { ADD_FAILURE() << "called back after Stop"; });
  client_.Stop();
  EXPECT_FALSE(worker_.assigned.has_header());
}

}  // namespace
}  // namespace muster
